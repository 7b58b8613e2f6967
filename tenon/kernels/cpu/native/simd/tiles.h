// AMX tiles: eight matrices of 16 rows of 64 bytes, and C += A B on them (TDPBF16PS).
//
// Two classes with the same static functions: the instructions, and their emulation, bit for bit, on the
// virtual lanes. Kernels are written once against either.
//
//   Tiles::Session     configures this thread's tiles while it exists
//   zero<c>()          load<t>(p, stride)    store<t>(p, stride)    strides in bytes
//   dot<c, a, b>()     C [16 m][16 n] f32 += A [16 m][32 k] bf16, B [16 k/2][16 n][2 k%2] bf16
//
// Outside a Session each of them is an invalid instruction; so sessions of one thread must not overlap: the
// end of the first would take the tiles from the second.
#pragma once

#include "simd/lanes.h"
#include "simd/tile_flaw.h"

namespace tenon::TENON_ISA {

#if defined(__AMX_TILE__) && defined(__AMX_BF16__)

// In assembly rather than intrinsics: GCC 12's are blind to what the instructions read from memory (it
// removes the stores that fill a configuration), and take literal tile numbers only.
struct Tiles {
    class Session {
      public:
        Session() {
            struct alignas(64) {
                uint8_t palette = 1, start_row = 0, reserved[14] = {};
                uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
                uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
            } config;
            __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
        }
        ~Session() { __asm__ volatile("tilerelease" : : : "memory"); }
        Session(const Session&) = delete;
    };

    template <int t>
    TENON_INLINE void zero() {
        __asm__ volatile("tilezero %%tmm%c0" : : "i"(t));
    }
    template <int t>
    TENON_INLINE void load(const void* p, int64_t stride) {
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(t) : "memory");
    }
    template <int t>
    TENON_INLINE void store(void* p, int64_t stride) {
        __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(t) : "memory");
    }
    template <int c, int a, int b>
    TENON_INLINE void dot() {
        __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
    }
};
#else

struct Tiles {
    alignas(64) static inline thread_local uint8_t tile[8][16][64];
    static inline thread_local bool configured = false;

    class Session {
      public:
        Session() {
            __builtin_memset(tile, 0xff, sizeof tile);  // NaN: stale tiles do not go unnoticed
            configured = true;
        }
        ~Session() { configured = false; }
        Session(const Session&) = delete;
    };

    TENON_INLINE void need_session() {
        if (!configured) __builtin_trap();
    }

    template <int t>
    TENON_INLINE void zero() {
        need_session();
        __builtin_memset(tile[t], 0, sizeof tile[t]);
    }
    template <int t>
    TENON_INLINE void load(const void* p, int64_t stride) {
        need_session();
        for (int row = 0; row < 16; ++row)
            __builtin_memcpy(tile[t][row], static_cast<const uint8_t*>(p) + row * stride, 64);
    }
    template <int t>
    TENON_INLINE void store(void* p, int64_t stride) {
        need_session();
        for (int row = 0; row < 16; ++row)
            __builtin_memcpy(static_cast<uint8_t*>(p) + row * stride, tile[t][row], 64);
    }
    // Two chains of fused multiply-adds from zero, over even and over odd k; their sum is added to C.
    template <int c, int a, int b>
    TENON_INLINE void dot() {
        need_session();
        if (g_tile_flaw == TileFlaw::fault) __builtin_trap();
        for (int row = 0; row < 16; ++row) {
            const bf16* x = reinterpret_cast<const bf16*>(tile[a][row]);
            F32x16 even = zero_f32(), odd = zero_f32();
            for (int pair = 0; pair < 16; ++pair) {
                const I32x16 both = load_i32(tile[b][pair]);
                even = fma(splat(tenon::to_f32(x[2 * pair])), as_f32(shl<16>(both)), even);
                odd = fma(splat(tenon::to_f32(x[2 * pair + 1])),
                          as_f32(both & splat_i32(int32_t(0xffff0000))), odd);
            }
            float* out = reinterpret_cast<float*>(tile[c][row]);
            if (g_tile_flaw == TileFlaw::no_even) even = zero_f32();
            tenon::TENON_ISA::store(out, tenon::TENON_ISA::load(out) + (even + odd));
        }
    }
};
#endif

}  // namespace tenon::TENON_ISA
