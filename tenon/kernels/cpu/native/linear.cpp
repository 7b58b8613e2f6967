// Bindings of packed weights and the linear layer.
#include "linear.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <tuple>

#include "bind.h"
#include "pack/packed.h"

namespace tenon {
namespace {

// (type, rows, columns, address, address of the row order or 0, whether it is a mapped file, type to quantize
// to or "", address of the exponents or 0, whether it is transposed, (address of the scales or 0, rows and
// columns of their blocks))
using PartTuple = std::tuple<std::string, int64_t, int64_t, uintptr_t, uintptr_t, bool, std::string,
                             uintptr_t, bool, std::tuple<uintptr_t, int64_t, int64_t>>;

std::unique_ptr<PackedLinear> pack(const std::vector<PartTuple>& tuples, bool f32, int act_bits,
                                   bool in_place, const nb::object&) {
    nb::gil_scoped_release released;
    std::vector<RawPart> parts;
    for (const auto& [type, rows, columns, data, order, mapped, quantize, exponents, transposed, scales] :
         tuples) {
        const auto& [scale, block_rows, block_columns] = scales;
        RawPart part{parse_source(type),
                     rows,
                     columns,
                     pointer<const uint8_t>(data),
                     pointer<const int32_t>(order),
                     mapped,
                     {},
                     pointer<const uint8_t>(exponents),
                     transposed,
                     {pointer<const float>(scale), block_rows, block_columns},
                     in_place && mapped};
        if (!quantize.empty()) part.quantize = parse_source(quantize);
        parts.push_back(part);
    }
    return PackedLinear::pack(parts, f32, act_bits);
}

std::unique_ptr<PackedLinear> adopt(int64_t columns,
                                    const std::vector<std::tuple<std::string, int64_t>>& layout,
                                    uintptr_t bytes, int64_t size, int act_bits, const nb::object&) {
    std::vector<Layout> segments;
    for (const auto& [format, rows] : layout) segments.push_back({parse_format(format), rows});
    return PackedLinear::adopt(columns, segments, pointer<const uint8_t>(bytes), size, act_bits);
}

std::vector<std::tuple<std::string, int64_t>> layout_of(const PackedLinear& w) {
    std::vector<std::tuple<std::string, int64_t>> layout;
    for (const Segment& segment : w.segments())
        layout.emplace_back(format_name(segment.format), segment.rows);
    return layout;
}

// Columns of x, its type and its rows are checked here, once for every caller.
void linear(uintptr_t x, int64_t x_stride, int64_t rows, int64_t columns, bool x_is_f32,
            const PackedLinear& w, uintptr_t bias, uintptr_t y, int64_t y_stride, bool accumulate) {
    const PackedView& view = w.view();
    if (columns != view.columns)
        throw std::invalid_argument("x has " + std::to_string(columns) + " columns, the weights take " +
                                    std::to_string(view.columns));
    if (x_is_f32 != (view.segments[0].format == Format::f32))
        throw std::invalid_argument("the weights were packed for activations of the other type");
    LinearArgs args{pointer<const void>(x),     x_stride,          x_is_f32, accumulate, nullptr,
                    pointer<const float>(bias), pointer<float>(y), y_stride, count(rows)};
    if (args.w = &w.float_view(); args.w->num_segments) run_op("linear", linear_kernels().linear, args);
    if (args.w = &w.int_view(); args.w->num_segments) {
        if (w.act_bits() == 8)
            run_op("linear int8", linear_int8_kernels().linear, args);
        else
            run_op("linear int16", linear_int16_kernels().linear, args);
    }
}

}  // namespace

void bind_linear(nb::module_& m) {
    nb::class_<PackedLinear>(m, "PackedLinear", "Weights in the layout of the CPU kernels.")
        .def_prop_ro("shape",
                     [](const PackedLinear& w) { return std::make_tuple(w.view().rows, w.view().columns); })
        .def_prop_ro("nbytes", [](const PackedLinear& w) { return w.view().num_bytes; })
        .def_prop_ro("bytes_in_place", &PackedLinear::bytes_in_place)
        .def_prop_ro("formats",
                     [](const PackedLinear& w) {
                         std::vector<std::string> names;
                         for (const Segment& segment : w.segments())
                             names.push_back(format_name(segment.format));
                         return names;
                     })
        .def_prop_ro("layout", &layout_of, "(format, rows) of each segment")
        .def_prop_ro("act_bits",
                     [](const PackedLinear& w) { return w.int_view().num_segments ? w.act_bits() : 0; })
        .def_prop_ro("address", [](const PackedLinear& w) { return reinterpret_cast<uintptr_t>(w.bytes()); })
        .def_prop_ro(
            "view_address", [](const PackedLinear& w) { return reinterpret_cast<uintptr_t>(&w.view()); },
            "of the PackedView that kernels read");
    m.def("pack_linear", &pack, nb::arg("parts"), nb::arg("f32"), nb::arg("act_bits") = 0,
          nb::arg("in_place") = false, nb::arg("owner") = nb::none(), nb::keep_alive<0, 5>());
    m.def("adopt_linear", &adopt, nb::arg("columns"), nb::arg("layout"), nb::arg("address"), nb::arg("size"),
          nb::arg("act_bits") = 0, nb::arg("owner") = nb::none(), nb::keep_alive<0, 6>());
    m.attr("LAYOUT_VERSION") = kLayoutVersion;
    m.def("linear", &linear, nb::arg("x"), nb::arg("x_stride"), nb::arg("rows"), nb::arg("columns"),
          nb::arg("x_is_f32"), nb::arg("w"), nb::arg("bias"), nb::arg("y"), nb::arg("y_stride"),
          nb::arg("accumulate"));
}

}  // namespace tenon
