// What a native op is: a plain struct of arguments, and a function that runs it.
//
// Every family `f` has
//   f.h          the argument structs, and a table of its kernels declared by TENON_DECLARE_KERNELS
//   isa/f.cpp    the kernels, in namespace tenon::TENON_ISA, compiled once per instruction set
//   f.cpp        bind_f(module): builds the arguments from Python and hands them to dispatch() (base/plan.h)
//
// Files under isa/ include no C++ standard library header with inline functions: the linker keeps one copy of
// each, and it could keep the one built for an instruction set that this machine does not have.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/isa.h"
#include "base/pool.h"

namespace tenon {

// How many rows a step has. Known when a plan is replayed, not when it is recorded.
struct StepDims {
    int tokens = 0;
    int requests = 0;
    int sampled = 0;
};

// A number of rows: fixed, or one of the step's. Kernels read it with at(dims).
struct Count {
    enum Kind : int32_t { kFixed, kTokens, kRequests, kSampled };
    int32_t value = 0;
    Kind kind = kFixed;

    int at(const StepDims& dims) const {
        switch (kind) {
            case kTokens:
                return dims.tokens;
            case kRequests:
                return dims.requests;
            case kSampled:
                return dims.sampled;
            default:
                return value;
        }
    }
};

// What a call must at least move and compute, for profiles.
struct Work {
    double bytes = 0;
    double flops = 0;
};

template <class Args>
using Kernel = void (*)(const Args&, const StepDims&, Pool&);

#ifdef TENON_HAVE_AVX2
#define TENON_CASE_AVX2(name) \
    case Isa::avx2:           \
        return avx2::name;
#else
#define TENON_CASE_AVX2(name)
#endif
#ifdef TENON_HAVE_AVX512
#define TENON_CASE_AVX512(name) \
    case Isa::avx512:           \
        return avx512::name;
#define TENON_CASE_EMULATED(name, isa) \
    case Isa::amx_emulated:            \
        return isa::name;
#define TENON_CASE_AMX_AS_AVX512(name) \
    case Isa::amx:                     \
        return avx512::name;
#else
#define TENON_CASE_AVX512(name)
#define TENON_CASE_EMULATED(name, isa)
#define TENON_CASE_AMX_AS_AVX512(name)
#endif
#ifdef TENON_HAVE_AMX
#define TENON_CASE_AMX(name) \
    case Isa::amx:           \
        return amx::name;
#else
#define TENON_CASE_AMX(name)
#endif

// The table `name` of type Table exists in the namespace of each instruction set; `name()` gives the current
// one. For families without kernels for AMX: those machines run the AVX-512 ones.
#define TENON_DECLARE_KERNELS(Table, name)    \
    namespace baseline {                      \
    extern const Table name;                  \
    }                                         \
    namespace avx2 {                          \
    extern const Table name;                  \
    }                                         \
    namespace avx512 {                        \
    extern const Table name;                  \
    }                                         \
    inline const Table& name() {              \
        switch (current_isa()) {              \
            TENON_CASE_AVX2(name)             \
            TENON_CASE_AVX512(name)           \
            TENON_CASE_EMULATED(name, avx512) \
            TENON_CASE_AMX_AS_AVX512(name)    \
            default:                          \
                return baseline::name;        \
        }                                     \
    }

// For families with kernels of their own for AMX, in amx/f.cpp.
#define TENON_DECLARE_KERNELS_AMX(Table, name)      \
    namespace baseline {                            \
    extern const Table name;                        \
    }                                               \
    namespace avx2 {                                \
    extern const Table name;                        \
    }                                               \
    namespace avx512 {                              \
    extern const Table name;                        \
    }                                               \
    namespace amx_emulated {                        \
    extern const Table name;                        \
    }                                               \
    namespace amx {                                 \
    extern const Table name;                        \
    }                                               \
    inline const Table& name() {                    \
        switch (current_isa()) {                    \
            TENON_CASE_AVX2(name)                   \
            TENON_CASE_AVX512(name)                 \
            TENON_CASE_EMULATED(name, amx_emulated) \
            TENON_CASE_AMX(name)                    \
            default:                                \
                return baseline::name;              \
        }                                           \
    }

}  // namespace tenon
