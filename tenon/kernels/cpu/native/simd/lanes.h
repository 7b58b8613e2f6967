// Sixteen virtual lanes of float32 (F32x16) and int32 (I32x16), whatever the machine has.
//
// Kernels are written once against these types and compiled once per instruction set, each time inside
// `namespace tenon::TENON_ISA`. Every function gives the same bits on every instruction set: all arithmetic
// is element-wise IEEE float32, reductions are fixed trees, fused multiply-adds are always fused, and nothing
// else is (-ffp-contract=off). Kernels run with denormals flushed (base/pool.h).
//
// Loads and stores need no alignment. `load_n`/`store_n` touch the first n elements only, 0 <= n <= 16, and
// fill with zeros. They are overloaded for float, bf16 and f16 (f16: load only) memory; a store to bf16
// rounds to nearest even.
//
//   load(p) load_n(p, n) store(p, v) store_n(p, v, n) splat(x) zero_f32()
//   a + b, a - b, a * b, a / b, fma(a, b, c) = a * b + c, min, max, abs, sqrt, round_to_bf16
//   lt(a, b) le(a, b) eq(a, b) -> Mask16; first_n(n) -> Mask16; select(mask, if_true, if_false); any(mask)
//   reduce_add, reduce_max, reduce_min -> float: tree over lane distances 8, 4, 2, 1
//   as_i32 as_f32 (bit casts), to_i32 (to nearest even) to_f32 (conversions)
//   load_i32(p) store_i32(p, v) load_i8(p) load_u8(p) splat_i32(x), + - * & | ^, shl<n> shr<n> sar<n>
//   store_i8(p, v): the lowest byte of each lane; even_first(v): of each eight lanes 0, 2, 4, 6, 1, 3, 5, 7
//   lookup_bytes(table, v): for each byte of v, 0..15, that of the table
//
// min(a, b) and max(a, b) give b when either is NaN, as x86 does.
#pragma once

#include "simd/types.h"

#ifndef TENON_ISA
#error "lanes.h belongs in files under native/isa, which are compiled once per instruction set"
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include "simd/avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "simd/avx2.h"
#else
#include "simd/scalar.h"
#endif
