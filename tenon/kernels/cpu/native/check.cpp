#include "check.h"

#include <cstring>
#include <random>
#include <vector>

#include "attention.h"
#include "linear.h"
#include "simd/types.h"

#if defined(TENON_HAVE_AVX512) && defined(__linux__)
#include <setjmp.h>
#include <signal.h>
#define TENON_CAN_CHECK_TILES
#endif

namespace tenon {
namespace {

#ifdef TENON_CAN_CHECK_TILES

constexpr int kFaults[] = {SIGILL, SIGSEGV, SIGBUS};
constexpr int kNumFaults = sizeof kFaults / sizeof *kFaults;

thread_local sigjmp_buf* t_return = nullptr;
struct sigaction g_before[kNumFaults];

void on_fault(int number) {
    if (t_return) siglongjmp(*t_return, number);
    // Another thread's own: it meets it again, without us.
    for (int i = 0; i < kNumFaults; ++i)
        if (kFaults[i] == number) sigaction(number, &g_before[i], nullptr);
}

// Runs f on this thread; the signal that an instruction in it raised, or 0. After one nothing that f held is
// released. One call at a time in a process.
template <class F>
int fault_of(const F& f) {
    struct sigaction action = {};
    action.sa_handler = on_fault;
    sigjmp_buf here;
    const int fault = sigsetjmp(here, 1);
    if (fault == 0) {
        t_return = &here;
        for (int i = 0; i < kNumFaults; ++i) sigaction(kFaults[i], &action, &g_before[i]);
        f();
    }
    for (int i = 0; i < kNumFaults; ++i) sigaction(kFaults[i], &g_before[i], nullptr);
    t_return = nullptr;
    return fault;
}

// Memory of 64-byte alignment, as packed weights and caches have.
template <class T>
struct Aligned {
    std::vector<T> memory;
    T* data;

    explicit Aligned(size_t count) : memory(count + 64 / sizeof(T)) {
        const size_t past = reinterpret_cast<uintptr_t>(memory.data()) % 64;
        data = memory.data() + (64 - past) % 64 / sizeof(T);
    }
};

using Random = std::minstd_rand;

// Of either sign, 1/8 to 2.
bf16 random_bf16(Random& random) {
    return {uint16_t(0x3e00 | (random() >> 8 & 0x81ff))};
}

Aligned<bf16> random_values(size_t count, Random& random) {
    Aligned<bf16> values(count);
    for (size_t i = 0; i < count; ++i) values.data[i] = random_bf16(random);
    return values;
}

// Two segments, bf16 tiles and codes that are unpacked into tiles, of three panels each (two at a time, and
// one); rows of x for two tiles and one more; the last step of K is not whole.
bool linear_agrees(Random& random) {
    constexpr int64_t M = 37, K = 118, steps = 4, panels = 3, N = panels * 16 - 5;
    const int64_t bytes = panels * steps * (step_bytes(Format::bf16) + step_bytes(Format::s4_d16));
    Aligned<uint8_t> weights{size_t(bytes)};
    bf16* tiles = reinterpret_cast<bf16*>(weights.data);
    for (int64_t panel = 0; panel < panels; ++panel)
        for (int64_t k = 0; k < K; ++k)
            for (int64_t c = 0; c < 16; ++c)
                tiles[((panel * steps * 16 + k / 2) * 16 + c) * 2 + k % 2] = random_bf16(random);
    uint8_t* codes = weights.data + panels * steps * step_bytes(Format::bf16);
    for (int64_t step = 0; step < panels * steps; ++step, codes += step_bytes(Format::s4_d16)) {
        for (int i = 0; i < 256; ++i) codes[i] = uint8_t(random() >> 8);
        for (int c = 0; c < 16; ++c) {
            const uint16_t scale = uint16_t(0x2c00 | (random() >> 8 & 0x83ff));  // f16, about 1/16
            std::memcpy(codes + 256 + 2 * c, &scale, 2);
        }
    }
    const Segment segments[] = {
        {Format::bf16, 0, N, panels, weights.data, steps * step_bytes(Format::bf16)},
        {Format::s4_d16, N, N, panels, weights.data + panels * steps * step_bytes(Format::bf16),
         steps * step_bytes(Format::s4_d16)}};
    const PackedView w{2 * N, K, steps, 2, segments, bytes};
    const Aligned<bf16> x = random_values(M * K, random);
    std::vector<float> y(size_t(M * 2 * N)), expected(y.size(), 1);
    LinearArgs args{x.data, K, false, false, &w, nullptr, y.data(), 2 * N, {int32_t(M)}};
    linear_kernels().linear(args, {}, pool());
    args.y = expected.data();
    avx512::linear_kernels.linear(args, {}, pool());
    return std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)) == 0;
}

// One request, part of its context in the cache: more query rows than two tiles, positions over a chunk.
bool attention_agrees(Random& random) {
    constexpr int64_t T = 20, E = 64, H = 4, G = 2, B = 32, blocks = 9, context = blocks * B - 3;
    const Aligned<bf16> q = random_values(T * H * E, random);
    const Aligned<bf16> k = random_values(blocks * G * E * B, random),
                        v = random_values(blocks * G * E * B, random);
    const int32_t query_start[] = {0, int32_t(T)}, context_len[] = {int32_t(context)};
    int32_t table[blocks];
    for (int i = 0; i < blocks; ++i) table[i] = (i * 4 + 2) % blocks;
    std::vector<bf16> o(size_t(T * H * E)), expected(o.size(), bf16{1});
    AttentionArgs args{q.data,  o.data(), k.data, v.data, query_start, context_len, table, blocks, {1},
                       nullptr, H,        G,      E,      E,           B,           0,     0,      0.125f};
    attention_kernels().bf16(args, {}, pool());
    args.o = expected.data();
    avx512::attention_kernels.bf16(args, {}, pool());
    return std::memcmp(o.data(), expected.data(), o.size() * sizeof(bf16)) == 0;
}

#endif

}  // namespace

std::string check_tiles() {
#ifdef TENON_CAN_CHECK_TILES
    if (current_isa() != Isa::amx && current_isa() != Isa::amx_emulated) return "";
    Random random(std::random_device{}());
    bool linear = false, attention = false;
    int fault = 0;
    Pool::Session session(pool());
    // Within a region the kernels stay on this thread.
    pool().parallel_for(1, [&](int64_t, int64_t, int) {
        fault = fault_of([&] { linear = linear_agrees(random), attention = attention_agrees(random); });
    });
    if (fault) return std::string("an instruction of theirs raised ") + strsignal(fault);
    if (!linear) return "a linear layer does not have the bits that AVX-512 gives it";
    if (!attention) return "attention does not have the bits that AVX-512 gives it";
#endif
    return "";
}

}  // namespace tenon
