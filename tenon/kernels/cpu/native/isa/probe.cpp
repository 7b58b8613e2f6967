#include "probe.h"

#include "simd/dot.h"
#include "simd/unpack.h"

namespace tenon::TENON_ISA {
namespace {

// Enough independent chains to hide the latency, few enough to stay in registers.
#if defined(__AVX512F__)
constexpr int kChains = 12;
#else
constexpr int kChains = 6;
#endif

double f32_peak(int64_t iterations) {
    F32x16 chain[kChains];
    const F32x16 a = splat(0.999f), b = splat(1e-6f);
    for (int i = 0; i < kChains; ++i) chain[i] = splat(float(i));
    for (int64_t n = 0; n < iterations; ++n)
        unroll<kChains>([&](auto i) TENON_LAMBDA { chain[i.value] = fma(chain[i.value], a, b); });
    F32x16 sum = chain[0];
    for (int i = 1; i < kChains; ++i) sum = sum + chain[i];
    float sink[16];
    store(sink, sum);
    __asm__ volatile("" : : "r"(sink) : "memory");
    return double(iterations) * kChains * 16 * 2;
}

// Bytes, as the linear layer multiplies them on this instruction set.
double int8_peak(int64_t iterations) {
    DotU4 chain[kChains / 6][6];  // GCC 12 leaves longer arrays in memory
    I32x16 a = splat_i32(0x01010101), b = splat_i32(0x01010101);
    for (int64_t n = 0; n < iterations; ++n) {
        __asm__ volatile("" : : "r"(&a), "r"(&b) : "memory");  // products are not constants
        const I32x16 codes = a, x = b;
        unroll<kChains>([&](auto i) TENON_LAMBDA { chain[i.value / 6][i.value % 6].add(codes, x); });
    }
    I32x16 sum = splat_i32(0);
    for (auto& six : chain)
        for (const DotU4& dot : six) sum = sum + dot.sum();
    int32_t sink[16];
    store_i32(sink, sum);
    __asm__ volatile("" : : "r"(sink) : "memory");
    return double(iterations) * kChains * 64 * 2;
}

uint64_t read_all(const void* data, int64_t bytes) {
    const char* p = static_cast<const char*>(data);
    I32x16 sum[4] = {splat_i32(0), splat_i32(0), splat_i32(0), splat_i32(0)};
    for (int64_t i = 0; i < bytes; i += 512)
        unroll<8>([&](auto j)
                      TENON_LAMBDA { sum[j.value % 4] = sum[j.value % 4] ^ load_i32(p + i + 64 * j.value); });
    uint64_t words[8];
    store_i32(words, (sum[0] ^ sum[1]) ^ (sum[2] ^ sum[3]));
    return words[0] ^ words[1] ^ words[2] ^ words[3] ^ words[4] ^ words[5] ^ words[6] ^ words[7];
}

}  // namespace

extern const ProbeKernels probe_kernels{f32_peak, nullptr, int8_peak, read_all};

}  // namespace tenon::TENON_ISA
