// What the bindings of all families share.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

#include "base/plan.h"

namespace tenon {

namespace nb = nanobind;

// Addresses cross the language border as integers (kernels/cpu/memory.py: address()).
template <class T>
T* pointer(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// dispatch() with the GIL released.
template <class Args>
void run_op(const char* op, Kernel<Args> kernel, const Args& args) {
    nb::gil_scoped_release released;
    dispatch(op, kernel, args);
}

// Each in its own file; module.cpp calls them all.
void bind_attention(nb::module_& m);
void bind_base(nb::module_& m);
void bind_batch(nb::module_& m);
void bind_full_attention(nb::module_& m);
void bind_pooling(nb::module_& m);
void bind_rope(nb::module_& m);
void bind_rowwise(nb::module_& m);
void bind_sampling(nb::module_& m);
void bind_simd(nb::module_& m);
void bind_embedding(nb::module_& m);
void bind_linear(nb::module_& m);
void bind_probe(nb::module_& m);

}  // namespace tenon
