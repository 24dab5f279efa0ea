// Vectors, blocks of channels, and threads that wait without turning.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>
#ifdef __linux__
#include <sys/mman.h>
#endif

#define INLINE inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(__AVX512F__)
constexpr int BYTES = 64, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int BYTES = 32, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int BYTES = 16, REGISTERS = 32;
#else
constexpr int BYTES = 16, REGISTERS = 16;
#endif
constexpr double SLOPE = 0.2;  // of the LeakyReLU

template <class T, int L> struct Vector { typedef T type __attribute__((vector_size(L * sizeof(T)))); };
template <class T, int L> using Vec = typename Vector<T, L>::type;
template <class T> constexpr int LANES = BYTES / sizeof(T) > 4 ? BYTES / sizeof(T) : 4;
template <int N> using Count = std::integral_constant<int, N>;

template <class T, int L> INLINE Vec<T, L> load(const T* p) { Vec<T, L> v; std::memcpy(&v, p, sizeof v); return v; }
template <class T, int L> INLINE void store(T* p, Vec<T, L> v) { std::memcpy(p, &v, sizeof v); }
template <class T, class V> INLINE V leaky(V t) { V s = t * T(SLOPE); return t > s ? t : s; }

// f(lanes, c) for c = 0 ... C - 1 in vectors as wide as the processor's while they fit, then of 8
// and 4: every number of channels here is a multiple of 4.
template <class T, class F> INLINE void blocks(int C, F f) {
    constexpr int L = LANES<T>;
    int c = 0;
    for (; c + L <= C; c += L) f(Count<L>(), c);
    if constexpr (L > 8) for (; c + 8 <= C; c += 8) f(Count<8>(), c);
    if constexpr (L > 4) for (; c < C; c += 4) f(Count<4>(), c);
}
// The same in pairs of vectors: f(lanes, vectors, c).
template <class T, class F> INLINE void wide_blocks(int C, F f) {
    constexpr int L = LANES<T>;
    int c = 0;
    for (; c + 2 * L <= C; c += 2 * L) f(Count<L>(), Count<2>(), c);
    for (; c + L <= C; c += L) f(Count<L>(), Count<1>(), c);
    if constexpr (L > 8) for (; c + 8 <= C; c += 8) f(Count<8>(), Count<1>(), c);
    if constexpr (L > 4) for (; c < C; c += 4) f(Count<4>(), Count<1>(), c);
}

template <class T> struct Buffer {  // aligned to a cache line, and not copied
    T* p = nullptr;
    Buffer() = default;
    Buffer(Buffer&& b) noexcept : p(b.p) { b.p = nullptr; }
    ~Buffer() { std::free(p); }
    void resize(size_t n) {  // zeros, in large pages where the system has them
        constexpr size_t page = 1 << 21, line = 64;
        const size_t bytes = (n * sizeof(T) + 64 + page - 1) / page * page;
        std::free(p);
        p = (T*)std::aligned_alloc(bytes > page ? page : line, bytes);
        if (!p) throw std::bad_alloc();
#ifdef __linux__
        if (bytes > page) madvise(p, bytes, MADV_HUGEPAGE);
#endif
        std::memset(p, 0, n * sizeof(T));
    }
    T* data() { return p; }
};

// Rows in chunks that depend on their number alone, shared among `threads` threads, the caller's
// among them: f(chunk, first row, row after the last, thread). A worker looks for work for some
// microseconds and then sleeps, so that a busy machine loses nothing by it.
inline thread_local int threads_wanted = 1;
inline int chunks_of(int rows) { return std::clamp(rows / 4, 1, 16); }

class Pool {
    std::mutex one_at_a_time, lock;
    std::condition_variable begin, end;
    const std::function<void(int)>* job = nullptr;
    std::atomic<unsigned> turn{0};
    std::atomic<int> left{0};
    int wanted = 0, workers = 0;

    void work(int i) {
        unsigned seen = 0;
        for (;;) {
            for (int spin = 0; spin < 2000 && turn.load(std::memory_order_acquire) == seen; spin++) pause();
            {
                std::unique_lock<std::mutex> guard(lock);
                begin.wait(guard, [&] { return turn.load() != seen; });
                seen = turn.load();
                if (i >= wanted) continue;
            }
            (*job)(i);
            if (left.fetch_sub(1) == 1) { std::lock_guard<std::mutex> guard(lock); end.notify_one(); }
        }
    }
    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

public:
    void run(int n, const std::function<void(int)>& f) {
        std::lock_guard<std::mutex> mine(one_at_a_time);
        {
            std::lock_guard<std::mutex> guard(lock);
            for (; workers < n - 1; workers++) std::thread([this, i = workers + 1] { work(i); }).detach();
            job = &f; wanted = n; left = n - 1; turn++;
        }
        begin.notify_all();
        f(0);
        for (int spin = 0; spin < 2000 && left.load(std::memory_order_acquire); spin++) pause();
        std::unique_lock<std::mutex> guard(lock);
        end.wait(guard, [&] { return left.load() == 0; });
    }
    static Pool& get() {  // never destroyed: its threads may outlive main
        static Pool* pool = new Pool;
        return *pool;
    }
};

template <class F> void parallel(int rows, size_t work, F f) {
    const int n = chunks_of(rows), threads = work < 40000 ? 1 : std::min(threads_wanted, n);
    auto chunk = [&](int c, int t) { f(c, (int)((long)rows * c / n), (int)((long)rows * (c + 1) / n), t); };
    if (threads == 1) { for (int c = 0; c < n; c++) chunk(c, 0); return; }
    std::atomic<int> next{0};
    Pool::get().run(threads, [&](int t) { for (int c; (c = next++) < n;) chunk(c, t); });
}
