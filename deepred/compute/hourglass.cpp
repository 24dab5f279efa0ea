// DIP's hourglass (networks.SkipNetwork) on a CPU: forward and backward pass in one sweep each.
//
// Maps lie channels-last, (height, width, channels), and each is written once: a convolution reads
// its input row by row, applying the normalisation and LeakyReLU that came before it on the way,
// and the statistics of what it writes are taken while the row is in the cache. Reflection is a
// matter of which row and pixel is read. The skip and the doubled map are never put together:
// `Cat` makes a row of both when one is asked for. No gradient is made for z, nor for a bias before
// a normalisation, which takes it out again.
//
// Rows are shared among threads in chunks that depend on the height alone, and sums are added up in
// the order of the chunks: the result is the same to the bit with any number of threads.
#include "rows.h"

namespace {

// A convolution's result y, followed by normalisation and, but for `Cat`, LeakyReLU; its gradient g.
template <class T> struct Map {
    int H = 0, W = 0, C = 0;
    Buffer<T> y, g;
    std::vector<T> a, b;     // normalised: a y + b
    std::vector<T> A, B, D;  // the gradient of y: A g + B y + D, where g is that of a y + b
    std::vector<T> mean, istd, rows;  // rows: two sums of each row and channel
    const T *gamma = nullptr, *beta = nullptr;
    T *dgamma = nullptr, *dbeta = nullptr;

    void shape(int h, int w, int c, bool keeps_y = true) {
        H = h; W = w; C = c;
        if (keeps_y) y.resize((size_t)h * w * c);
        g.resize((size_t)h * w * c);
        for (auto v : {&a, &b, &A, &B, &D, &mean, &istd}) v->assign(c, 0);
        rows.assign((size_t)2 * h * c, 0);
    }
    T* at(int r) { return y.data() + (size_t)r * W * C; }
    T* grad(int r) { return g.data() + (size_t)r * W * C; }

    void statistics(int r, const T* row) {  // mean and squared deviations of a row just made
        T* s = &rows[(size_t)2 * r * C];
        blocks<T>(C, [&](auto lanes, int c) {
            constexpr int L = lanes();
            using V = Vec<T, L>;
            V sum{}, more{}, square{}, squares{};
            const int even = W & ~1;
            for (int x = 0; x < even; x += 2) sum += load<T, L>(row + x * C + c), more += load<T, L>(row + (x + 1) * C + c);
            if (W & 1) sum += load<T, L>(row + even * C + c);
            V m = (sum + more) * (T(1) / W);
            for (int x = 0; x < even; x += 2) {
                V d = load<T, L>(row + x * C + c) - m, e = load<T, L>(row + (x + 1) * C + c) - m;
                square += d * d; squares += e * e;
            }
            if (W & 1) { V d = load<T, L>(row + even * C + c) - m; square += d * d; }
            store<T, L>(s + c, m); store<T, L>(s + C + c, square + squares);
        });
    }
    void normalise() {  // Chan, Golub and LeVeque (1979): rows joined one after the other
        for (int c = 0; c < C; c++) {
            double n = 0, m = 0, squares = 0;
            for (int r = 0; r < H; r++) {
                double d = rows[(size_t)2 * r * C + c] - m, t = n + W;
                m += d * W / t; squares += rows[(size_t)(2 * r + 1) * C + c] + d * d * n * W / t; n = t;
            }
            double s = 1 / std::sqrt(squares / n + 1e-5);
            mean[c] = m; istd[c] = s; a[c] = gamma[c] * s; b[c] = beta[c] - m * gamma[c] * s;
        }
    }
    void normalise_backward() {
        double n = (double)H * W;
        for (int c = 0; c < C; c++) {
            double s1 = 0, s2 = 0;
            for (int r = 0; r < H; r++) s1 += rows[(size_t)2 * r * C + c], s2 += rows[(size_t)(2 * r + 1) * C + c];
            dbeta[c] = s1; dgamma[c] = s2;
            double k = (double)gamma[c] * istd[c], q = k * istd[c] * s2 / n;
            A[c] = k; B[c] = -q; D[c] = q * mean[c] - k * s1 / n;
        }
    }
    template <bool LEAKY> void activate(const T* row, T* out) {
        wide_blocks<T>(C, [&, end = (long)W * C, step = C](auto lanes, auto vectors, int c) {
            constexpr int L = lanes(), N = vectors();
            Vec<T, L> p[N], q[N];
            UNROLL for (int n = 0; n < N; n++) p[n] = load<T, L>(&a[c + n * L]), q[n] = load<T, L>(&b[c + n * L]);
            for (long i = c; i < end; i += step) UNROLL for (int n = 0; n < N; n++) {
                auto t = p[n] * load<T, L>(row + i + n * L) + q[n];
                if (LEAKY) t = leaky<T>(t);
                store<T, L>(out + i + n * L, t);
            }
        });
    }
    void gradient_row(int r, T* out, const T* row = nullptr) {  // of y
        if (!row) row = at(r);
        const T* e = grad(r);
        wide_blocks<T>(C, [&, end = (long)W * C, step = C](auto lanes, auto vectors, int c) {
            constexpr int L = lanes(), N = vectors();
            Vec<T, L> p[N], q[N], o[N];
            UNROLL for (int n = 0; n < N; n++) {
                p[n] = load<T, L>(&A[c + n * L]); q[n] = load<T, L>(&B[c + n * L]); o[n] = load<T, L>(&D[c + n * L]);
            }
            for (long i = c; i < end; i += step) UNROLL for (int n = 0; n < N; n++) {
                long at = i + n * L;
                store<T, L>(out + at, p[n] * load<T, L>(e + at) + (q[n] * load<T, L>(row + at) + o[n]));
            }
        });
    }
    // Keep a row of the gradient of what follows, through LeakyReLU, and the two sums that the
    // normalisation needs.
    template <bool LEAKY> void keep(int r, const T* G, const T* row = nullptr) {
        if (!row) row = at(r);
        T *e = grad(r), *s = &rows[(size_t)2 * r * C];
        wide_blocks<T>(C, [&, end = (long)W * C, step = C](auto lanes, auto vectors, int c) {
            constexpr int L = lanes(), N = vectors();
            using V = Vec<T, L>;
            V p[N], q[N], m[N], s1[N], s2[N];
            UNROLL for (int n = 0; n < N; n++) {
                const int k = c + n * L;
                p[n] = load<T, L>(&a[k]); q[n] = load<T, L>(&b[k]); m[n] = load<T, L>(&mean[k]); s1[n] = s2[n] = V{};
            }
            for (long i = c; i < end; i += step) UNROLL for (int n = 0; n < N; n++) {
                const long at = i + n * L;
                V d = load<T, L>(G + at);
                V y = load<T, L>(row + at);
                if (LEAKY) d = p[n] * y + q[n] > T(0) ? d : d * T(SLOPE);
                s1[n] += d; s2[n] += d * (y - m[n]);
                store<T, L>(e + at, d);
            }
            UNROLL for (int n = 0; n < N; n++) {
                store<T, L>(s + c + n * L, s1[n]); store<T, L>(s + C + c + n * L, s2[n] * load<T, L>(&istd[c + n * L]));
            }
        });
    }
};

// What a convolution reads: a row at a time, of C channels, first as it is kept and then as it is read.
template <class T> struct Source {
    int H, W, C;
    virtual const T* raw(int r, T* scratch) = 0;
    virtual void activate(const T* raw, T* out) = 0;
    void row(int r, T* out, T* scratch) { activate(raw(r, scratch), out); }
};
template <class T> struct Input : Source<T> {  // z as it is
    const T* z;
    const T* raw(int r, T*) override { return z + (size_t)r * this->W * this->C; }
    void activate(const T* raw, T* out) override { std::memcpy(out, raw, sizeof(T) * this->W * this->C); }
};
template <class T> struct Active : Source<T> {
    Map<T>* m;
    void of(Map<T>& map) { m = &map; this->H = map.H; this->W = map.W; this->C = map.C; }
    const T* raw(int r, T*) override { return m->at(r); }
    void activate(const T* raw, T* out) override { m->template activate<true>(raw, out); }
};
// The skip's channels, then the map below doubled (bilinear, align_corners=False); normalised.
template <class T> struct Cat : Source<T> {
    Map<T> *skip, *low, norm;
    void of(Map<T>& s, Map<T>& l) {
        skip = &s; low = &l; this->H = 2 * l.H; this->W = 2 * l.W; this->C = s.C + l.C;
        norm.shape(this->H, this->W, this->C, false);
    }
    void plain(int r, T* out, T* scratch) {  // before the normalisation; scratch: 2 rows of low, 1 of skip
        const int C = this->C, S = skip->C, K = low->C, w = low->W;
        T *near = scratch, *far = near + (size_t)w * K, *s = far + (size_t)w * K;
        low->template activate<true>(low->at(r / 2), near);
        low->template activate<true>(low->at(std::clamp(r / 2 + (r & 1 ? 1 : -1), 0, low->H - 1)), far);
        for (long i = 0; i < (long)w * K; i++) near[i] = T(.75) * near[i] + T(.25) * far[i];
        blocks<T>(K, [&](auto lanes, int c) {
            constexpr int L = lanes();
            auto before = load<T, L>(near + c), here = before;
            T* o = out + S + c;
            for (int x = 0; x < w; x++, o += 2 * C) {
                auto after = load<T, L>(near + std::min(x + 1, w - 1) * K + c), most = T(.75) * here;
                store<T, L>(o, most + T(.25) * before); store<T, L>(o + C, most + T(.25) * after);
                before = here; here = after;
            }
        });
        if (S) {
            skip->template activate<true>(skip->at(r), s);
            blocks<T>(S, [&](auto lanes, int c) {
                constexpr int L = lanes();
                for (int x = 0; x < 2 * w; x++) store<T, L>(out + x * C + c, load<T, L>(s + x * S + c));
            });
        }
    }
    const T* raw(int r, T* scratch) override { plain(r, scratch, scratch + (size_t)this->W * this->C); return scratch; }
    void activate(const T* raw, T* out) override { norm.template activate<false>(raw, out); }
};

template <class T> struct Weights {  // of a convolution, (CO, CI, K, K) as torch has them
    const T *w = nullptr, *bias = nullptr;
    T *dw = nullptr, *dbias = nullptr;
    std::vector<T> packed[6], packed_back[6], sums;
};

template <class T> struct Net {
    int H, W, scales, skip, outputs, oh, ow;
    Input<T> z;
    struct Level {
        Map<T> s, d1, d2, u1, u2; Cat<T> cat;
        Active<T> of_d1, of_d2, of_u1, of_u2;
        Weights<T> ws, w1, w2, w3, w4;
    };
    std::vector<Level> level;
    Weights<T> head;
    std::vector<Buffer<T>> scratch;
    size_t room;

    Net(int h, int w, int inputs, int sk, int outs, int oh, int ow, int n, const int* channels)
        : H(h), W(w), scales(n), skip(sk), outputs(outs), oh(oh), ow(ow), level(n) {
        z.H = h; z.W = w; z.C = inputs;
        int most = std::max(inputs, sk + 4);
        for (int l = 0; l < n; l++) {
            Level& v = level[l];
            int C = channels[l], hh = h >> l, ww = w >> l;
            most = std::max(most, C + sk);
            if (sk) v.s.shape(hh, ww, sk);
            v.d1.shape(hh / 2, ww / 2, C); v.d2.shape(hh / 2, ww / 2, C);
            v.u1.shape(hh, ww, C); v.u2.shape(hh, ww, C);
            v.of_d1.of(v.d1); v.of_d2.of(v.d2); v.of_u1.of(v.u1); v.of_u2.of(v.u2);
        }
        for (int l = 0; l < n; l++) level[l].cat.of(level[l].s, l + 1 < n ? level[l + 1].u2 : level[l].d2);
        room = (size_t)(w + 8) * most * 20;
    }
    // Pointers to weights and gradients in the order of the module's parameters.
    void bind(T* const* p, T* const* g) {
        int i = 0;
        auto conv = [&](Weights<T>& k) { k.w = p[i]; k.dw = g[i++]; k.bias = p[i]; k.dbias = g[i++]; };
        auto norm = [&](Map<T>& m) { m.gamma = p[i]; m.dgamma = g[i++]; m.beta = p[i]; m.dbeta = g[i++]; };
        for (Level& v : level) {
            if (skip) conv(v.ws), norm(v.s);
            conv(v.w1); norm(v.d1); conv(v.w2); norm(v.d2);
        }
        for (int l = scales - 1; l >= 0; l--) {
            Level& v = level[l];
            norm(v.cat.norm); conv(v.w3); norm(v.u1); conv(v.w4); norm(v.u2);
        }
        conv(head);
    }
    Source<T>& into(int l) { if (l == 0) return z; return level[l - 1].of_d2; }
    T* room_of(int t) { return scratch[t].data(); }
    void threads(int n) { while ((int)scratch.size() < n) { scratch.emplace_back(); scratch.back().resize(room); } }

    // A row with a pixel of reflection at both ends; `out` has W + 2 pixels.
    void padded(Source<T>& in, int r, T* out, T* tmp) {
        const int C = in.C, W = in.W;
        in.row(r < 0 ? -r : r >= in.H ? 2 * in.H - 2 - r : r, out + C, tmp);
        reflect(out, W, C);
    }
    static void reflect(T* row, int W, int C) {
        std::memcpy(row, row + 2 * C, sizeof(T) * C);
        std::memcpy(row + (size_t)(W + 1) * C, row + (size_t)(W - 1) * C, sizeof(T) * C);
    }
    static void fold(T* row, int W, int C) {  // of a gradient, where the reflection came from
        for (int c = 0; c < C; c++) row[2 * C + c] += row[c];
        for (int c = 0; c < C; c++) row[(size_t)(W - 1) * C + c] += row[(size_t)(W + 1) * C + c];
    }
    // The two convolutions that read a map on the way down: 3x3 of stride 2, and the skip's 1x1.
    void down(Source<T>& in, Level& v) {
        const int CI = in.C, CO = v.d1.C;
        Weights<T> &k = v.w1, &ks = v.ws;
        pack<T>(k.packed[0], 3, 3 * CI, CO, [&](int r, int j, int c) { return k.w[((c * CI + j % CI) * 3 + r) * 3 + j / CI]; });
        pack<T>(ks.packed[0], 1, CI, skip, [&](int, int j, int c) { return ks.w[c * CI + j]; });
        parallel(v.d1.H, (size_t)v.d1.H * v.d1.W * CI, [&](int, int r0, int r1, int t) {
            const size_t size = (size_t)(in.W + 2) * CI;
            for (int y = r0; y < r1; y++) {
                const T* at[3];
                for (int i = 0; i < 3; i++) {
                    const int r = 2 * y + i - 1;
                    T* row = room_of(t) + ((r + 1) & 3) * size;
                    at[i] = row;
                    if (i == 0 && y > r0) continue;
                    padded(in, r, row, nullptr);
                    if (i == 0 || !skip) continue;
                    const T* inner = row + CI;
                    row_conv<T>(&inner, 1, CI, CI, ks.packed[0].data(), v.s.at(r), skip, skip, in.W);
                    v.s.statistics(r, v.s.at(r));
                }
                row_conv<T>(at, 3, 3 * CI, 2 * CI, k.packed[0].data(), v.d1.at(y), CO, CO, v.d1.W);
                v.d1.statistics(y, v.d1.at(y));
            }
        });
        v.d1.normalise();
        if (skip) v.s.normalise();
    }
    // G w: tap (row r, plane p) of a filter for input channel i and output channel o.
    static T tap(const Weights<T>& k, int CI, int o, int i, int r, int p) {
        const T* w = k.w + ((size_t)(o * CI + i) * 3 + r) * 3;
        return T(G_MATRIX[p][0]) * w[0] + T(G_MATRIX[p][1]) * w[1] + T(G_MATRIX[p][2]) * w[2];
    }
    void conv3(Source<T>& in, Map<T>& out, Weights<T>& k) {
        const int CI = in.C, CO = out.C, n = (in.W + 3) / 4;
        for (int p = 0; p < 6; p++)
            pack<T>(k.packed[p], 3, CI, CO, [&](int r, int j, int c) { return tap(k, CI, c, j, r, p); });
        parallel(out.H, (size_t)out.H * out.W * CI, [&](int, int r0, int r1, int t) {
            const size_t wide = (size_t)(4 * n + 2) * CI, size = (size_t)6 * n * CI;
            T *ring = room_of(t), *x = ring + 4 * size, *m = x + wide, *tmp = m + (size_t)6 * n * CO;
            std::memset(x, 0, sizeof(T) * wide);
            for (int y = r0; y < r1; y++) {
                const T* at[3];
                for (int i = 0; i < 3; i++) {
                    T* row = ring + ((y + i) & 3) * size;
                    at[i] = row;
                    if (i < 2 && y > r0) continue;
                    padded(in, y + i - 1, x, tmp); to_planes(x, CI, n, row);
                }
                for (int p = 0; p < 6; p++) {
                    row_conv<T>(at, 3, CI, CI, k.packed[p].data(), m + (size_t)p * n * CO, CO, CO, n);
                    for (auto& row : at) row += n * CI;
                }
                from_planes(m, CO, n, out.at(y), out.W);
                out.statistics(y, out.at(y));
            }
        });
        out.normalise();
    }
    void conv1(Source<T>& in, Map<T>& out, Weights<T>& k) {
        const int CI = in.C, CO = out.C;
        pack<T>(k.packed[0], 1, CI, CO, [&](int, int j, int c) { return k.w[c * CI + j]; });
        parallel(out.H, (size_t)out.H * out.W * CI, [&](int, int r0, int r1, int t) {
            T *x = room_of(t), *tmp = x + (size_t)in.W * CI;
            for (int y = r0; y < r1; y++) {
                in.row(y, x, tmp);
                row_conv<T>(&x, 1, CI, CI, k.packed[0].data(), out.at(y), CO, CO, out.W);
                out.statistics(y, out.at(y));
            }
        });
        out.normalise();
    }
    void cat(Cat<T>& c) {
        parallel(c.H, (size_t)c.H * c.W * c.C, [&](int, int r0, int r1, int t) {
            T *row = room_of(t), *tmp = row + (size_t)c.W * c.C;
            for (int y = r0; y < r1; y++) c.plain(y, row, tmp), c.norm.statistics(y, row);
        });
        c.norm.normalise();
    }
    void forward(const T* zz, T* out, int nt) {
        threads_wanted = nt; threads(nt); z.z = zz;
        for (int l = 0; l < scales; l++) {
            Level& v = level[l];
            down(into(l), v); conv3(v.of_d1, v.d2, v.w2);
        }
        for (int l = scales - 1; l >= 0; l--) {
            Level& v = level[l];
            cat(v.cat); conv3(v.cat, v.u1, v.w3); conv1(v.of_u1, v.u2, v.w4);
        }
        Active<T>& in = level[0].of_u2;
        const int CI = in.C;
        pack<T>(head.packed[0], 1, CI, 4, [&](int, int j, int c) { return c < outputs ? head.w[c * CI + j] : 0; });
        parallel(oh, (size_t)oh * ow * CI, [&](int, int r0, int r1, int t) {
            T *x = room_of(t), *o = x + (size_t)W * CI;
            for (int y = r0; y < r1; y++) {
                in.row(y, x, nullptr);
                row_conv<T>(&x, 1, CI, CI, head.packed[0].data(), o, 4, 4, ow);
                for (int c = 0; c < outputs; c++) for (int i = 0; i < ow; i++)
                    out[((size_t)c * oh + y) * ow + i] = o[4 * i + c] + head.bias[c];
            }
        });
    }

    // The sums over chunks of rows, all in the first of them.
    static void total(std::vector<T>& sums, int chunks, size_t n) {
        for (int c = 1; c < chunks; c++) for (size_t i = 0; i < n; i++) sums[i] += sums[c * n + i];
    }
    // They make the gradient of a convolution's weights, in torch's order.
    template <class F> void collect(Weights<T>& k, int chunks, int n, int CO, F index) {
        total(k.sums, chunks, n);
        for (int j = 0; j < n / CO; j++) for (int c = 0; c < CO; c++) k.dw[index(j, c)] = k.sums[(size_t)j * CO + c];
        for (int c = 0; c < CO; c++) k.dbias[c] = 0;  // the normalisation takes the bias out again
    }
    static T* added(T* to, const T* a, const T* b, size_t n) { for (size_t i = 0; i < n; i++) to[i] = a[i] + b[i]; return to; }

    // Weights and input of what `down` does; no gradient where there is no map above. The gradient of
    // the 3x3's input is that of the padded input, folded where the reflection came from: row 1 was
    // also read as row -1.
    void back_down(Source<T>& in, Level& v, Map<T>* above) {
        Map<T>& out = v.d1;
        Weights<T> &k = v.w1, &ks = v.ws;
        const int H = in.H, W = in.W, CI = in.C, CO = out.C, J = 3 * CI, n = 3 * J * CO;
        // The taps that meet at an odd or even row and column of the input.
        static const int odd[2] = {2, 0}, even[1] = {1};
        auto put = [&](int i, const int* kys, int R, const int* kxs, int K) {
            pack<T>(k.packed_back[i], R, K * CO, CI, [&](int r, int j, int c) {
                return k.w[((j % CO * CI + c) * 3 + kys[r]) * 3 + kxs[j / CO]]; });
        };
        if (above) {
            put(0, even, 1, odd, 2), put(1, even, 1, even, 1), put(2, odd, 2, odd, 2), put(3, odd, 2, even, 1);
            pack<T>(ks.packed_back[0], 1, skip, CI, [&](int, int j, int c) { return ks.w[j * CI + c]; });
        }
        k.sums.assign((size_t)chunks_of(H) * n, 0); ks.sums.assign((size_t)chunks_of(H) * CI * skip, 0);
        parallel(H, (size_t)H * W * CI, [&](int chunk, int r0, int r1, int t) {
            const size_t size = (size_t)(out.W + 2) * CO, width = (size_t)(W + 2) * CI;
            T *ring = room_of(t), *none = ring + 2 * size, *sum = none + size;
            T *x = sum + size, *G = x + width, *e = G + width;
            std::memset(ring, 0, sizeof(T) * 3 * size);
            int have[2] = {-1, -1};
            auto dy = [&](int y) -> const T* {  // with a pixel of nothing at both ends
                if (y >= out.H) return none;
                T* at = ring + (y & 1) * size;
                if (have[y & 1] != y) out.gradient_row(y, at + CO), have[y & 1] = y;
                return at;
            };
            for (int r = r0; r < r1; r++) {
                in.row(r, x + CI, nullptr); reflect(x, W, CI);
                const int R = 1 + (r & 1), *kys = r & 1 ? odd : even;
                const T *at[2] = {dy(r / 2), r & 1 ? dy(r / 2 + 1) : nullptr}, *inner = e;
                if (r == 1) at[1] = added(sum, at[0], at[1], size);
                for (int i = 0; i < R; i++)
                    row_outer<T>(x, J, 2 * CI, at[i] + CO, CO, out.W, &k.sums[(size_t)chunk * n + (size_t)kys[i] * J * CO]);
                if (skip) {
                    v.s.gradient_row(r, e);
                    row_outer<T>(x + CI, CI, CI, e, skip, W, &ks.sums[(size_t)chunk * CI * skip]);
                }
                if (!above) continue;
                row_conv<T>(at, R, 2 * CO, CO, k.packed_back[2 * R - 2].data(), G, 2 * CI, CI, out.W + 1);
                for (int i = 0; i < R; i++) at[i] += CO;
                row_conv<T>(at, R, CO, CO, k.packed_back[2 * R - 1].data(), G + CI, 2 * CI, CI, out.W);
                std::memset(G + (size_t)(W + 1) * CI, 0, sizeof(T) * CI);
                fold(G, W, CI);
                if (skip) {
                    row_conv<T>(&inner, 1, skip, skip, ks.packed_back[0].data(), x, CI, CI, W);
                    added(G + CI, G + CI, x, (size_t)W * CI);
                }
                above->template keep<true>(r, G + CI);
            }
        });
        collect(k, chunks_of(H), n, CO, [&](int j, int c) { return ((c * CI + j % CI) * 3 + j / J) * 3 + j % J / CI; });
        if (skip) collect(ks, chunks_of(H), CI * skip, skip, [&](int j, int c) { return c * CI + j; });
        if (above) above->normalise_backward();
    }
    // Weights and input of a convolution of stride 1. A row of the input meets three rows of the result,
    // whose gradients' planes serve both.
    template <class F> void back3(Source<T>& in, Map<T>& out, Weights<T>& k, F keep) {
        const int H = in.H, W = in.W, CI = in.C, CO = out.C, n = (W + 3) / 4, count = 3 * CI * CO;
        for (int p = 0; p < 6; p++)
            pack<T>(k.packed_back[p], 3, CO, CI, [&](int r, int j, int c) { return tap(k, CI, j, c, r, p); });
        k.sums.assign((size_t)chunks_of(H) * 6 * count, 0);
        parallel(H, (size_t)H * W * CI, [&](int chunk, int r0, int r1, int t) {
            const size_t size = (size_t)6 * n * CO, wide = (size_t)(4 * n + 2) * CI;
            T *none = room_of(t), *sum[2] = {none + size, none + 2 * size}, *ring = none + 3 * size;
            T *d = ring + 4 * size, *x = d + (size_t)4 * n * CO, *v = x + wide, *tmp = v + (size_t)6 * n * CI;
            std::memset(none, 0, sizeof(T) * size); std::memset(d, 0, sizeof(T) * 4 * n * CO);
            int have[4] = {-9, -9, -9, -9};
            auto dy = [&](int y) -> const T* {
                if (y < 0 || y >= H) return none;
                T* at = ring + (y & 3) * size;
                if (have[y & 3] != y) out.gradient_row(y, d), gradient_to_planes(d, CO, n, at), have[y & 3] = y;
                return at;
            };
            for (int r = r0; r < r1; r++) {
                const T *at[3] = {dy(r + 1), dy(r), dy(r - 1)}, *y = in.raw(r, tmp);
                if (r == 1) at[0] = added(sum[0], at[0], dy(0), size);  // rows 1 and H - 2 were also read as
                if (r == H - 2) at[2] = added(sum[1], at[2], dy(H - 1), size);  // their reflections
                std::memset(x + (size_t)(W + 2) * CI, 0, sizeof(T) * (4 * n - W) * CI);
                in.activate(y, x + CI); reflect(x, W, CI); to_planes(x, CI, n, v);
                for (int p = 0; p < 6; p++, v += n * CI) {
                    for (int i = 0; i < 3; i++)
                        row_outer<T>(v, CI, CI, at[i], CO, n, &k.sums[((size_t)chunk * 18 + p * 3 + i) * CI * CO]);
                    row_conv<T>(at, 3, CO, CO, k.packed_back[p].data(), v, CI, CI, n);  // v has served
                    for (int i = 0; i < 3; i++) at[i] += n * CO;
                }
                v -= (size_t)6 * n * CI;
                gradient_from_planes(v, CI, n, x); fold(x, W, CI);
                keep(r, x + CI, y);
            }
        });
        total(k.sums, chunks_of(H), (size_t)6 * count);
        for (int j = 0; j < 3 * CI; j++) for (int c = 0; c < CO; c++) for (int x = 0; x < 3; x++) {  // G'
            T s = 0;
            for (int p = 0; p < 6; p++) s += T(G_MATRIX[p][x]) * k.sums[(size_t)(p * 3 * CI + j) * CO + c];
            k.dw[((c * CI + j % CI) * 3 + j / CI) * 3 + x] = s;
        }
        std::fill_n(k.dbias, CO, T(0));
    }
    // Weights and input of a 1x1 convolution.
    template <class F> void back1(Source<T>& in, Map<T>& out, Weights<T>& k, F keep) {
        const int CI = in.C, CO = out.C, n = CI * CO;
        pack<T>(k.packed_back[0], 1, CO, CI, [&](int, int j, int c) { return k.w[j * CI + c]; });
        k.sums.assign((size_t)chunks_of(out.H) * n, 0);
        parallel(out.H, (size_t)out.H * out.W * CI, [&](int chunk, int r0, int r1, int t) {
            T *x = room_of(t), *d = x + (size_t)in.W * CI, *G = d + (size_t)out.W * CO, *tmp = G + (size_t)in.W * CI;
            for (int y = r0; y < r1; y++) {
                out.gradient_row(y, d);
                in.row(y, x, tmp);
                row_outer<T>(x, CI, CI, d, CO, out.W, &k.sums[(size_t)chunk * n]);
                row_conv<T>(&d, 1, CO, CO, k.packed_back[0].data(), G, CI, CI, in.W);
                keep(y, G);
            }
        });
        collect(k, chunks_of(out.H), n, CO, [&](int j, int c) { return c * CI + j; });
    }
    void back_head(const T* go) {
        Map<T>& in = level[0].u2;
        const int CI = in.C, n = 4 * CI;
        pack<T>(head.packed_back[0], 1, 4, CI, [&](int, int j, int c) { return j < outputs ? head.w[j * CI + c] : 0; });
        head.sums.assign((size_t)chunks_of(H) * n, 0);
        parallel(H, (size_t)H * W * CI, [&](int chunk, int r0, int r1, int t) {
            T *x = room_of(t), *d = x + (size_t)W * CI, *G = d + (size_t)W * 4;
            for (int y = r0; y < r1; y++) {
                std::memset(d, 0, sizeof(T) * W * 4);  // nothing where the output was cropped
                if (y < oh) for (int c = 0; c < outputs; c++) for (int i = 0; i < ow; i++)
                    d[4 * i + c] = go[((size_t)c * oh + y) * ow + i];
                in.template activate<true>(in.at(y), x);
                row_outer<T>(x, CI, CI, d, 4, W, &head.sums[(size_t)chunk * n]);
                row_conv<T>(&d, 1, 4, 4, head.packed_back[0].data(), G, CI, CI, W);
                in.template keep<true>(y, G);
            }
        });
        total(head.sums, chunks_of(H), n);
        for (int c = 0; c < outputs; c++) {
            for (int j = 0; j < CI; j++) head.dw[c * CI + j] = head.sums[j * 4 + c];
            double s = 0;
            for (size_t i = 0; i < (size_t)oh * ow; i++) s += go[(size_t)c * oh * ow + i];
            head.dbias[c] = s;
        }
        in.normalise_backward();
    }
    void back_cat(Cat<T>& c) {  // its own gradient to the skip and the map below
        Map<T> &low = *c.low, &s = *c.skip;
        const int C = c.C, S = s.C, K = low.C;
        parallel(low.H, (size_t)c.H * c.W * C, [&](int, int r0, int r1, int t) {
            size_t n = (size_t)c.W * C;
            T *ring = room_of(t), *v = ring + 4 * n, *G = v + (size_t)(c.W + 2) * K, *tmp = G + (size_t)low.W * K;
            int have[4] = {-1, -1, -1, -1};
            auto dy = [&](int y) {
                T* at = ring + (y & 3) * n;
                if (have[y & 3] != y) c.plain(y, at, tmp), c.norm.gradient_row(y, at, at), have[y & 3] = y;
                return at;
            };
            for (int i = r0; i < r1; i++) {
                const T *m = dy(2 * i), *o = dy(2 * i + 1), *before = i ? dy(2 * i - 1) : m, *after = i + 1 < low.H ? dy(2 * i + 2) : o;
                blocks<T>(K, [&](auto lanes, int k) {
                    constexpr int L = lanes();
                    for (int x = 0; x < c.W; x++) {
                        size_t at = (size_t)x * C + S + k;
                        store<T, L>(v + (x + 1) * K + k, T(.75) * (load<T, L>(m + at) + load<T, L>(o + at)) + T(.25) * (load<T, L>(before + at) + load<T, L>(after + at)));
                    }
                });
                std::memcpy(v, v + K, sizeof(T) * K); std::memcpy(v + (size_t)(c.W + 1) * K, v + (size_t)c.W * K, sizeof(T) * K);
                blocks<T>(K, [&](auto lanes, int k) {
                    constexpr int L = lanes();
                    for (int x = 0; x < low.W; x++) {
                        const T* q = v + (size_t)2 * x * K + k;
                        store<T, L>(G + x * K + k, T(.75) * (load<T, L>(q + K) + load<T, L>(q + 2 * K)) + T(.25) * (load<T, L>(q) + load<T, L>(q + 3 * K)));
                    }
                });
                low.template keep<true>(i, G);
                if (S) for (const T* from : {m, o}) {
                    blocks<T>(S, [&](auto lanes, int k) { for (int x = 0; x < c.W; x++) store<T, lanes()>(v + x * S + k, load<T, lanes()>(from + (size_t)x * C + k)); });
                    s.template keep<true>(2 * i + (from == o), v);
                }
            }
        });
        low.normalise_backward();
        if (S) s.normalise_backward();
    }
    void backward(const T* go, int nt) {
        threads_wanted = nt;
        back_head(go);
        for (int l = 0; l < scales; l++) {
            Level& v = level[l];
            back1(v.of_u1, v.u2, v.w4, [&](int r, const T* G) { v.u1.template keep<true>(r, G); });
            v.u1.normalise_backward();
            back3(v.cat, v.u1, v.w3, [&](int r, const T* G, const T* y) { v.cat.norm.template keep<false>(r, G, y); });
            v.cat.norm.normalise_backward();
            back_cat(v.cat);
        }
        for (int l = scales - 1; l >= 0; l--) {  // d2's and s's gradients are there
            Level& v = level[l];
            Map<T>* above = l ? &level[l - 1].d2 : nullptr;
            back3(v.of_d1, v.d2, v.w2, [&](int r, const T* G, const T*) { v.d1.template keep<true>(r, G); });
            v.d1.normalise_backward();
            back_down(into(l), v, above);
        }
    }
};

}  // namespace

#define API(T, name)                                                                                     \
    extern "C" void* hourglass_new_##name(int h, int w, int in, int skip, int out, int oh, int ow, int n, const int* channels) { \
        try { return new Net<T>(h, w, in, skip, out, oh, ow, n, channels); }                               \
        catch (const std::bad_alloc&) { return nullptr; } }                                                \
    extern "C" void hourglass_free_##name(void* net) { delete (Net<T>*)net; }                              \
    extern "C" void hourglass_forward_##name(void* net, const T* z, T* const* p, T* const* g, T* out, int threads) { \
        auto n = (Net<T>*)net; n->bind(p, g); n->forward(z, out, threads); }                               \
    extern "C" void hourglass_backward_##name(void* net, const T* go, T* const* p, T* const* g, int threads) { \
        auto n = (Net<T>*)net; n->bind(p, g); n->backward(go, threads); }
API(float, float32)
API(double, float64)
