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

// The best of the tables that exist for the current instruction set: its own, else that of one it includes.
template <class Table>
const Table& choose_kernels(const Table* baseline, const Table* avx2, const Table* avx512,
                            const Table* avx512_vnni, const Table* amx_emulated, const Table* amx) {
    switch (current_isa()) {
        case Isa::amx:
            return *(amx ? amx : avx512_vnni ? avx512_vnni : avx512);
        case Isa::amx_emulated:
            return *(amx_emulated ? amx_emulated : avx512);
        case Isa::avx512_vnni:
            return *(avx512_vnni ? avx512_vnni : avx512);
        case Isa::avx512:
            return *avx512;
        case Isa::avx2:
            return *avx2;
        default:
            return *baseline;
    }
}

// The table `name` of type Table, defined once in the namespace of each instruction set that has kernels of
// its own (isa/f.cpp: baseline, avx2, avx512; CMakeLists.txt says which files go further); `name()` gives the
// current one. The declarations are weak: where there is no definition, the address is null.
#define TENON_DECLARE_KERNELS(Table, name)                                                     \
    namespace baseline {                                                                       \
    extern const Table name __attribute__((weak));                                             \
    }                                                                                          \
    namespace avx2 {                                                                           \
    extern const Table name __attribute__((weak));                                             \
    }                                                                                          \
    namespace avx512 {                                                                         \
    extern const Table name __attribute__((weak));                                             \
    }                                                                                          \
    namespace avx512_vnni {                                                                    \
    extern const Table name __attribute__((weak));                                             \
    }                                                                                          \
    namespace amx_emulated {                                                                   \
    extern const Table name __attribute__((weak));                                             \
    }                                                                                          \
    namespace amx {                                                                            \
    extern const Table name __attribute__((weak));                                             \
    }                                                                                          \
    inline const Table& name() {                                                               \
        return choose_kernels(&baseline::name, &avx2::name, &avx512::name, &avx512_vnni::name, \
                              &amx_emulated::name, &amx::name);                                \
    }

}  // namespace tenon
