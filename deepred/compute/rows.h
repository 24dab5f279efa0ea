// What convolutions do with a row of pixels: products with weights, products of rows with rows for the
// weights' gradient, and Winograd's transforms.
#pragma once
#include "common.h"

namespace {

// out[x][c] = sum_r sum_j in[r][x * IS + j] w[r][j][c], for P pixels and N vectors of L channels.
// Three pixels share a pointer, so that an x86 addresses them with one index register.
template <class T, int L, int N, int P>
INLINE void tile(const T* const* in, int R, int J, long IS, const T* w, T* out, long OS) {
    using V = Vec<T, L>;
    constexpr int G = (P + 2) / 3;
    V acc[P][N];
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int n = 0; n < N; n++) acc[p][n] = V{};
    for (int r = 0; r < R; r++) {
        const T* a[G];
        UNROLL for (int g = 0; g < G; g++) a[g] = in[r] + 3 * g * IS;
        for (int j = 0; j < J; j++, w += N * L) {
            V wv[N];
            UNROLL for (int n = 0; n < N; n++) wv[n] = load<T, L>(w + n * L);
            UNROLL for (int p = 0; p < P; p++) UNROLL for (int n = 0; n < N; n++)
                acc[p][n] += a[p / 3][j + p % 3 * IS] * wv[n];
        }
    }
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int n = 0; n < N; n++)
        store<T, L>(out + p * OS + n * L, acc[p][n]);
}

// A row of n pixels, CO channels: blocks of channels as wide as there are, w packed block by block.
template <class T, int L, int N>
INLINE void block(const T* const* in, int R, int J, long IS, const T* w, T* out, long OS, int n) {
    constexpr int P = N == 1 ? 12 : (REGISTERS - 4) / N > 12 ? 12 : (REGISTERS - 4) / N;
    int x = 0;
    const T* at[3];
    auto from = [&](int x) { for (int r = 0; r < R; r++) at[r] = in[r] + x * IS; return at; };
    for (; x + P <= n; x += P) tile<T, L, N, P>(from(x), R, J, IS, w, out + x * OS, OS);
    for (; x + 4 <= n; x += 4) tile<T, L, N, 4>(from(x), R, J, IS, w, out + x * OS, OS);
    for (; x < n; x++) tile<T, L, N, 1>(from(x), R, J, IS, w, out + x * OS, OS);
}
template <class T>
void row_conv(const T* const* in, int R, int J, long IS, const T* w, T* out, long OS, int CO, int n) {
    wide_blocks<T>(CO, [&](auto lanes, auto vectors, int c) {
        constexpr int L = lanes(), N = vectors();
        block<T, L, N>(in, R, J, IS, w + (size_t)c * R * J, out + c, OS, n);
    });
}
// The weights of such a row, where value(r, j, c) tells them.
template <class T, class F> void pack(std::vector<T>& w, int R, int J, int CO, F value) {
    w.resize((size_t)R * J * CO);
    T* at = w.data();
    wide_blocks<T>(CO, [&](auto lanes, auto vectors, int c) {
        for (int r = 0; r < R; r++) for (int j = 0; j < J; j++)
            for (int i = 0; i < lanes() * vectors(); i++) *at++ = value(r, j, c + i);
    });
}

// dw[j][c] += sum_x in[x * IS + j] d[x][c], for K values of j and N vectors of L channels.
template <class T, int L, int N, int K>
INLINE void outer(const T* in, long IS, const T* d, long DS, int n, T* dw, long WS) {
    using V = Vec<T, L>;
    V acc[K][N];
    UNROLL for (int k = 0; k < K; k++) UNROLL for (int m = 0; m < N; m++) acc[k][m] = V{};
    for (int x = 0; x < n; x++, in += IS, d += DS) {
        V dv[N];
        UNROLL for (int m = 0; m < N; m++) dv[m] = load<T, L>(d + m * L);
        UNROLL for (int k = 0; k < K; k++) UNROLL for (int m = 0; m < N; m++)
            acc[k][m] += in[k] * dv[m];
    }
    UNROLL for (int k = 0; k < K; k++) UNROLL for (int m = 0; m < N; m++)
        store<T, L>(dw + k * WS + m * L, load<T, L>(dw + k * WS + m * L) + acc[k][m]);
}
template <class T>
void row_outer(const T* in, int J, long IS, const T* d, int CO, int n, T* dw) {
    for (int x = 0; x < n; x += 64) {  // as much of both as the nearest cache holds
        int m = std::min(64, n - x);
        wide_blocks<T>(CO, [&](auto lanes, auto vectors, int c) {
            constexpr int L = lanes(), N = vectors(), K = (REGISTERS - 4) / N > 12 ? 12 : (REGISTERS - 4) / N;
            const T *i = in + x * IS, *e = d + (size_t)x * CO + c;
            int j = 0;
            for (; j + K <= J; j += K) outer<T, L, N, K>(i + j, IS, e, CO, m, dw + (size_t)j * CO + c, CO);
            for (; j + 4 <= J; j += 4) outer<T, L, N, 4>(i + j, IS, e, CO, m, dw + (size_t)j * CO + c, CO);
            for (; j < J; j++) outer<T, L, N, 1>(i + j, IS, e, CO, m, dw + (size_t)j * CO + c, CO);
        });
    }
}

// Winograd's F(4, 3) along a row (Lavin and Gray, 2016): y = A'[(G w) (B' x)] takes 6 multiplications
// for 4 pixels and a filter of 3 where there were 12. Its points 0, +-sqrt(1/2), +-sqrt(2) and infinity
// keep the precision of float32. A row of n tiles becomes 6 planes of n pixels; gradients go back by
// the transposed matrices.
constexpr double ROOT = .70710678118654752440;
constexpr double G_MATRIX[6][3] = {{1, 0, 0}, {-2 / 3., -ROOT / 1.5, -1 / 3.}, {-2 / 3., ROOT / 1.5, -1 / 3.},
                                   {1 / 6., ROOT / 3, 1 / 3.}, {1 / 6., -ROOT / 3, 1 / 3.}, {0, 0, 1}};
// f(lanes, t, c) for each tile and block of channels.
template <class T, class F> INLINE void tiles(int C, int n, F f) {
    blocks<T>(C, [&](auto lanes, int c) { for (int t = 0; t < n; t++) f(lanes, t, c); });
}
template <class T> void to_planes(const T* x, int C, int n, T* v) {  // B': x has 4 n + 2 pixels
    tiles<T>(C, n, [&](auto lanes, int t, int c) {
        constexpr int L = lanes();
        Vec<T, L> d[6];
        UNROLL for (int i = 0; i < 6; i++) d[i] = load<T, L>(x + (size_t)(4 * t + i) * C + c);
        auto a = d[4] - T(2) * d[2], b = T(ROOT) * (d[3] - T(2) * d[1]);
        auto e = d[4] - T(.5) * d[2], f = T(2 * ROOT) * (d[3] - T(.5) * d[1]);
        Vec<T, L> m[6] = {d[4] - T(2.5) * d[2] + d[0], a + b, a - b, e + f, e - f, d[5] - T(2.5) * d[3] + d[1]};
        UNROLL for (int i = 0; i < 6; i++) store<T, L>(v + (size_t)(i * n + t) * C + c, m[i]);
    });
}
template <class T> void from_planes(const T* v, int C, int n, T* y, int W) {  // A': W pixels
    tiles<T>(C, n, [&](auto lanes, int t, int c) {
        constexpr int L = lanes();
        Vec<T, L> m[6];
        UNROLL for (int i = 0; i < 6; i++) m[i] = load<T, L>(v + (size_t)(i * n + t) * C + c);
        auto a = m[1] + m[2], b = T(ROOT) * (m[1] - m[2]), e = m[3] + m[4], f = T(2 * ROOT) * (m[3] - m[4]);
        Vec<T, L> d[4] = {m[0] + a + e, b + f, T(.5) * a + T(2) * e, T(.5) * b + T(2) * f + m[5]};
        UNROLL for (int i = 0; i < 4; i++) if (4 * t + i < W) store<T, L>(y + (size_t)(4 * t + i) * C + c, d[i]);
    });
}
template <class T> void gradient_to_planes(const T* y, int C, int n, T* v) {  // A: y has 4 n pixels
    tiles<T>(C, n, [&](auto lanes, int t, int c) {
        constexpr int L = lanes();
        Vec<T, L> d[4];
        UNROLL for (int i = 0; i < 4; i++) d[i] = load<T, L>(y + (size_t)(4 * t + i) * C + c);
        auto a = d[0] + T(.5) * d[2], b = T(ROOT) * (d[1] + T(.5) * d[3]);
        auto e = d[0] + T(2) * d[2], f = T(2 * ROOT) * (d[1] + T(2) * d[3]);
        Vec<T, L> m[6] = {d[0], a + b, a - b, e + f, e - f, d[3]};
        UNROLL for (int i = 0; i < 6; i++) store<T, L>(v + (size_t)(i * n + t) * C + c, m[i]);
    });
}
template <class T> void gradient_from_planes(const T* v, int C, int n, T* x) {  // B: tiles overlap by 2 pixels
    blocks<T>(C, [&](auto lanes, int c) {
        constexpr int L = lanes();
        Vec<T, L> m[6], last{}, past{};
        for (int t = 0; t < n; t++) {
            UNROLL for (int i = 0; i < 6; i++) m[i] = load<T, L>(v + (size_t)(i * n + t) * C + c);
            auto a = m[1] + m[2], b = T(ROOT) * (m[1] - m[2]), e = m[3] + m[4], f = T(2 * ROOT) * (m[3] - m[4]);
            T* to = x + (size_t)4 * t * C + c;
            store<T, L>(to, last + m[0]); store<T, L>(to + C, past + m[5] - T(2) * b - T(.5) * f);
            store<T, L>(to + 2 * C, T(-2.5) * m[0] - T(2) * a - T(.5) * e); store<T, L>(to + 3 * C, b + f - T(2.5) * m[5]);
            last = m[0] + a + e; past = m[5];
        }
        store<T, L>(x + (size_t)4 * n * C + c, last); store<T, L>(x + (size_t)(4 * n + 1) * C + c, past);
    });
}

}  // namespace
