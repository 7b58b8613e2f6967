// What the bindings of all families share.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <stdexcept>
#include <type_traits>

#include "base/plan.h"

namespace tenon {

namespace nb = nanobind;

// Addresses cross the language border as integers (kernels/cpu/memory.py: address()).
template <class T>
T* pointer(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// The address of an array of T without gaps, through the buffer protocol: in every step of decoding, with
// caches that the kernels have emptied, numpy's own attributes would cost several times as much. Throws
// std::invalid_argument for another type or gaps, nb::python_error for what is no array. The caller keeps the
// array alive.
template <class T>
T* dense(nb::handle array) {
    Py_buffer view;
    if (PyObject_GetBuffer(array.ptr(), &view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) != 0)
        throw nb::python_error();
    const bool floating = view.format[0] == 'f' || view.format[0] == 'd';
    const bool is_signed = view.format[0] == 'i' || view.format[0] == 'l' || view.format[0] == 'q';
    const bool right = view.itemsize == sizeof(T) && floating == std::is_floating_point_v<T> &&
                       (floating || is_signed == std::is_signed_v<T>);
    void* data = view.buf;
    PyBuffer_Release(&view);
    if (!right) throw std::invalid_argument("an array has another dtype than the op takes");
    return static_cast<T*>(data);
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
void bind_recurrent(nb::module_& m);
void bind_rope(nb::module_& m);
void bind_rowwise(nb::module_& m);
void bind_sampling(nb::module_& m);
void bind_simd(nb::module_& m);
void bind_sparse(nb::module_& m);
void bind_embedding(nb::module_& m);
void bind_latent(nb::module_& m);
void bind_layer_inputs(nb::module_& m);
void bind_indexer(nb::module_& m);
void bind_linear(nb::module_& m);
void bind_moe(nb::module_& m);
void bind_probe(nb::module_& m);

}  // namespace tenon
