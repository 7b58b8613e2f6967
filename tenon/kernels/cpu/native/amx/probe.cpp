#include "probe.h"

#include "simd/tiles.h"

namespace tenon::TENON_ISA {
namespace {

#if defined(__AVX512VNNI__)
namespace vectors = avx512_vnni;
#else
namespace vectors = avx512;
#endif

// Operands stay in the tiles: four sums over two by two operands, as in the linear layer.
double bf16_peak(int64_t iterations) {
    const Tiles::Session session;
    Tiles::zero<0>(), Tiles::zero<1>(), Tiles::zero<2>(), Tiles::zero<3>();
    Tiles::zero<4>(), Tiles::zero<5>(), Tiles::zero<6>(), Tiles::zero<7>();
    for (int64_t n = 0; n < iterations; ++n) {
        Tiles::dot<0, 4, 6>();
        Tiles::dot<1, 4, 7>();
        Tiles::dot<2, 5, 6>();
        Tiles::dot<3, 5, 7>();
    }
    return double(iterations) * 4 * (16 * 16 * 32 * 2);
}

double f32_peak(int64_t iterations) {
    return vectors::probe_kernels.f32(iterations);
}

#if defined(__AVX512VNNI__)
double int8_peak(int64_t iterations) {
    return vectors::probe_kernels.int8(iterations);
}
#else
constexpr PeakLoop int8_peak = nullptr;
#endif

uint64_t read_all(const void* data, int64_t bytes) {
    return vectors::probe_kernels.read(data, bytes);
}

}  // namespace

extern const ProbeKernels probe_kernels{f32_peak, bf16_peak, int8_peak, read_all};

}  // namespace tenon::TENON_ISA
