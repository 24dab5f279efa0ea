// The noise on z, and non-local means, on a CPU. Plain loops that compilers turn into vectors.
#include "common.h"

namespace {

constexpr int STREAMS = 16, L = LANES<float>;  // numbers made at a time, and by one instruction
typedef Vec<float, L> F;
typedef Vec<int32_t, L> I;
typedef Vec<uint32_t, L> U;
INLINE F floats(I x) { return __builtin_convertvector(x, F); }
INLINE I whole(F x) { return __builtin_convertvector(x, I); }  // towards zero
INLINE I bits(F x) { return (I)x; }
INLINE F root(F x) { for (int i = 0; i < L; i++) x[i] = std::sqrt(x[i]); return x; }

uint64_t mixed(uint64_t& x) {  // splitmix64
    uint64_t z = (x += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}
struct Xoshiro {  // 128++ of Blackman and Vigna (2021), 16 streams beside each other
    uint32_t s[4][STREAMS];
    explicit Xoshiro(uint64_t seed) {
        for (auto& row : s) for (int i = 0; i < STREAMS; i += 2) { uint64_t w = mixed(seed); row[i] = w; row[i + 1] = w >> 32; }
    }
    static U turned(U x, int k) { return (x << k) | (x >> (32 - k)); }
    U next(int i) {
        U a = load<uint32_t, L>(s[0] + i), b = load<uint32_t, L>(s[1] + i), c = load<uint32_t, L>(s[2] + i), d = load<uint32_t, L>(s[3] + i);
        U out = turned(a + d, 7) + a, t = b << 9;
        c ^= a; d ^= b; b ^= c; a ^= d; c ^= t; d = turned(d, 11);
        store<uint32_t, L>(s[0] + i, a); store<uint32_t, L>(s[1] + i, b); store<uint32_t, L>(s[2] + i, c); store<uint32_t, L>(s[3] + i, d);
        return out;
    }
};
// log of x in (0, 1], and cos and sin of a quarter turn times t in [-2, 2), as Cephes has them.
INLINE F log_of(F x) {
    F e = floats((bits(x) >> 23) - 126), m = (F)((bits(x) & 0x7fffff) | 0x3f000000);
    const I low = m < 0.70710678f;
    e = low ? e - 1 : e;
    m = (low ? m + m : m) - 1;
    F y = m * 0 + 7.0376836292e-2f, z = m * m;
    for (float c : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                    2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f}) y = y * m + c;
    return e * 0.69314718f + (m + (y * m * z - 0.5f * z));
}
INLINE void turn(F t, F& cosine, F& sine) {
    const I q = whole(t + 2.5f) - 2;  // the nearest quarter
    const F a = (t - floats(q)) * 1.57079633f, z = a * a;
    const F s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * a + a;
    const F c = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1;
    const I odd = (q & 1) != 0;
    cosine = (F)(bits(odd ? s : c) ^ (((q + 1) & 2) << 30));
    sine = (F)(bits(odd ? c : s) ^ ((q & 2) << 30));
}

int mirrored(int i, int n) {
    const int period = std::max(2 * n - 2, 1);
    i = (i % period + period) % period;
    return std::min(i, period - i);
}

}  // namespace

// out = z + scale * N(0, 1), by Box and Muller (1958). What is drawn depends on `key` and the place
// alone: blocks of 4096 numbers have generators of their own.
extern "C" void add_noise(const float* z, float* out, long n, float scale, uint64_t key, int threads) {
    constexpr long B = 4096;
    threads_wanted = threads;
    const int blocks = (n + B - 1) / B;
    parallel(blocks, n, [&](int, int b0, int b1, int) {
        for (long b = b0; b < b1; b++) {
            uint64_t seed = key ^ (uint64_t)b * 0xd1342543de82ef95ULL;
            Xoshiro random(mixed(seed));
            const long end = std::min(n, (b + 1) * B);
            for (long at = b * B; at < end; at += 2 * STREAMS) {
                float noise[2 * STREAMS];
                for (int i = 0; i < STREAMS; i += L) {
                    F c, s, r = root(-2 * log_of(floats((I)(random.next(i) >> 8)) * 0x1p-24f + 0x1p-25f));
                    turn(floats((I)random.next(i) >> 8) * 0x1p-22f, c, s);
                    store<float, L>(noise + i, scale * r * c); store<float, L>(noise + STREAMS + i, scale * r * s);
                }
                const int m = std::min<long>(2 * STREAMS, end - at);
                for (int i = 0; i < m; i++) out[at + i] = z[at + i] + noise[i];
            }
        }
    });
}

// Non-local means of a plane, as denoisers.nlm_torch has it with patches of 5 x 5: see there.
extern "C" void nlm(const float* x, float* out, int H, int W, float sigma, int distance, float h, int threads) {
    const int reach = 2 + distance, PW = W + 2 * reach, PH = H + 2 * reach, V = (W + L - 1) / L * L;
    std::vector<float> p((size_t)PH * PW + L);
    for (int r = 0; r < PH; r++) for (int c = 0; c < PW; c++)
        p[(size_t)r * PW + c] = x[(size_t)mirrored(r - reach, H) * W + mirrored(c - reach, W)];
    const float offset = 2 * 16 * sigma * sigma, scale = 1 / (25 * h * h * sigma * sigma * std::log(2.f));
    const float cut = 5 / std::log(2.f), K = 60801.f / (1 << 20);
    threads_wanted = threads;
    parallel(H, (size_t)H * W * 100, [&](int, int from, int to, int) {
        for (int y0 = from; y0 < to; y0 += 16) {  // as many rows as the cache holds
            const int R = std::min(to - y0, 16);
            std::vector<float> total((size_t)R * V, 0), sum((size_t)R * V, 0), square(V + 3), ring(4 * (size_t)V);
            for (int dy = -distance; dy <= distance; dy++) for (int dx = -distance; dx <= distance; dx++) {
                auto strip = [&](int r, float* o) {  // squared differences, summed over 4 columns
                    const float *a = &p[(size_t)(r + reach) * PW + reach - 1], *b = a + (long)dy * PW + dx;
                    float* s = square.data();
                    for (int i = 0; i < W + 3; i++) { float d = a[i] - b[i]; s[i] = d * d; }
                    for (int i = 0; i < W; i++) o[i] = (s[i] + s[i + 1]) + (s[i + 2] + s[i + 3]);
                };
                float* v[4];
                for (int i = 0; i < 4; i++) v[i] = &ring[(size_t)i * V];
                for (int k = -1; k < 2; k++) strip(y0 + k, v[(k + 4) & 3]);
                for (int y = 0; y < R; y++) {
                    strip(y0 + y + 2, v[(y + 2) & 3]);
                    const float *q = &p[(size_t)(y0 + y + reach + dy) * PW + reach + dx];
                    const float *v0 = v[0], *v1 = v[1], *v2 = v[2], *v3 = v[3];
                    float *t = &total[(size_t)y * V], *s = &sum[(size_t)y * V];
                    for (int i = 0; i < W; i += L) {  // rows are as long as whole vectors
                        auto at = [&](const float* p) { return load<float, L>(p + i); };
                        const F apart = (at(v0) + at(v1)) + (at(v2) + at(v3)) - offset;
                        F e = (apart > 0 ? apart : apart * 0) * scale;
                        e = e < 100 ? e : e * 0 + 100;
                        const F power = -e - K;
                        I n = whole(power);
                        n += (power < floats(n));  // floor: true is -1
                        const F two = (F)((n + 127) << 23), weight = e > cut ? e * 0 : two * (1 + power - floats(n));
                        store<float, L>(t + i, at(t) + weight); store<float, L>(s + i, at(s) + weight * at(q));
                    }
                }
            }
            for (int y = 0; y < R; y++) for (int i = 0; i < W; i++)
                out[(size_t)(y0 + y) * W + i] = sum[(size_t)y * V + i] / total[(size_t)y * V + i];
        }
    });
}
