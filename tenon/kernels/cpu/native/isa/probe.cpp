#include "probe.h"

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

#if defined(__AVX512VNNI__)
// In assembly: a roof must not depend on what a compiler keeps in registers or moves out of the loop.
double int8_peak(int64_t iterations) {
    for (int64_t n = 0; n < iterations; ++n)
        __asm__ volatile(
            "vpdpbusd %%zmm0, %%zmm0, %%zmm1\n\tvpdpbusd %%zmm0, %%zmm0, %%zmm2\n\t"
            "vpdpbusd %%zmm0, %%zmm0, %%zmm3\n\tvpdpbusd %%zmm0, %%zmm0, %%zmm4\n\t"
            "vpdpbusd %%zmm0, %%zmm0, %%zmm5\n\tvpdpbusd %%zmm0, %%zmm0, %%zmm6\n\t"
            "vpdpbusd %%zmm0, %%zmm0, %%zmm7\n\tvpdpbusd %%zmm0, %%zmm0, %%zmm8\n\t"
            "vpdpbusd %%zmm0, %%zmm0, %%zmm9\n\tvpdpbusd %%zmm0, %%zmm0, %%zmm10"
            :
            :
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10");
    return double(iterations) * 10 * 128;
}
#else
constexpr PeakLoop int8_peak = nullptr;
#endif

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
