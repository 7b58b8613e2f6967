// Bindings of the foundation: instruction sets, threads, memory, plans.
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <tuple>

#include "base/arena.h"
#include "bind.h"

namespace tenon {
namespace {

using ByteArray = nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>;

// A block of an arena, which it keeps alive.
struct Block {
    std::shared_ptr<Arena> arena;
    void* data;
    ~Block() { arena->release(data); }
};

// Uninitialised bytes, given back when the last array that views them dies.
ByteArray arena_bytes(const std::shared_ptr<Arena>& arena, size_t bytes) {
    Block* block = new Block{arena, arena->allocate(bytes)};
    nb::capsule owner(block, [](void* p) noexcept { delete static_cast<Block*>(p); });
    return ByteArray(block->data, {bytes}, owner);
}

nb::list profile_of(const Plan& plan) {
    nb::list rows;
    for (const OpProfile& kind : plan.profile()) {
        nb::dict row;
        row["op"] = kind.op;
        row["calls"] = kind.calls;
        row["seconds"] = kind.seconds;
        row["bytes"] = kind.work.bytes;
        row["flops"] = kind.work.flops;
        rows.append(row);
    }
    return rows;
}

// Where an array's first element lies. By the buffer protocol without a format, which is an order of
// magnitude cheaper than numpy's attributes and takes dtypes from outside numpy too.
uintptr_t address(nb::handle array) {
    Py_buffer view;
    if (PyObject_GetBuffer(array.ptr(), &view, PyBUF_STRIDES) != 0) throw nb::python_error();
    const uintptr_t data = reinterpret_cast<uintptr_t>(view.buf);
    PyBuffer_Release(&view);
    return data;
}

void bind_isa(nb::module_& m) {
    m.def("isa", [] { return isa_name(current_isa()); });
    m.def("available_isas", [] {
        std::vector<std::string> names;
        for (Isa isa : available_isas()) names.push_back(isa_name(isa));
        return names;
    });
    m.def("set_isa", &set_isa, nb::arg("name"));
    m.def("assume_amx", &assume_amx,
          "For tests, whose signal handler executes what the processor does not know: AMX is usable from now "
          "on.");
    m.def("cpu_features", [] {
        nb::dict features;
        for (const auto& [name, present] : cpu_features()) features[name.c_str()] = present;
        return features;
    });
}

void bind_pool(nb::module_& m) {
    m.def("num_threads", [] { return pool().num_threads(); });
    m.def("max_threads", [] { return pool().max_threads(); });
    m.def("default_threads", [] { return pool().default_threads(); });
    m.def(
        "set_num_threads", [](int count) { pool().set_num_threads(count); }, nb::arg("count"),
        nb::call_guard<nb::gil_scoped_release>());
    m.def("pin_caller", [] { pool().pin_caller(); });
    // For tests: `regions` empty parallel regions of `tasks` tasks each; the task numbered `fail` throws.
    m.def(
        "exercise_pool",
        [](int regions, int64_t tasks, int64_t fail) {
            Pool::Session session(pool());
            std::vector<uint8_t> done(size_t(tasks), 0);
            for (int region = 0; region < regions; ++region)
                pool().parallel_for(tasks, [&](int64_t begin, int64_t end, int) {
                    for (int64_t task = begin; task < end; ++task) {
                        if (task == fail) throw std::runtime_error("a task failed, as asked");
                        done[size_t(task)] += 1;
                    }
                });
            std::vector<int> counts(done.begin(), done.end());
            return counts;
        },
        nb::arg("regions"), nb::arg("tasks"), nb::arg("fail") = -1, nb::call_guard<nb::gil_scoped_release>());
}

void bind_plan(nb::module_& m) {
    nb::class_<Arena>(m, "Arena")
        .def(nb::new_([](size_t chunk_bytes) { return std::make_shared<Arena>(chunk_bytes); }),
             nb::arg("chunk_bytes") = size_t(64) << 20)
        .def("bytes", &arena_bytes, nb::arg("size"))
        .def_prop_ro("bytes_reserved", &Arena::bytes_reserved)
        .def_prop_ro("bytes_used", &Arena::bytes_used);
    nb::class_<Plan>(m, "Plan")
        .def(nb::init<>())
        .def(
            "run",
            [](const Plan& plan, int tokens, int requests, int sampled) {
                plan.run({tokens, requests, sampled});
            },
            nb::arg("tokens"), nb::arg("requests"), nb::arg("sampled"),
            nb::call_guard<nb::gil_scoped_release>())
        .def(
            "record",
            [](Plan& plan, int tokens, int requests, int sampled, const std::tuple<int, int, int>& run) {
                const auto [t, r, s] = run;
                return std::make_unique<Recorder>(plan, StepDims{tokens, requests, sampled},
                                                  StepDims{t, r, s});
            },
            nb::keep_alive<0, 1>(), nb::arg("tokens"), nb::arg("requests"), nb::arg("sampled"),
            nb::arg("run"))
        .def_prop_ro("ops", &Plan::ops)
        .def("__len__", &Plan::size)
        .def("set_profiling", &Plan::set_profiling, nb::arg("on"))
        .def("profile", &profile_of);
    // The counter's address; 0: nowhere.
    m.def(
        "count_ops", [](uintptr_t counter) { count_ops(reinterpret_cast<uint64_t*>(counter)); },
        nb::arg("counter"));
    nb::class_<Recorder>(m, "Recorder").def("stop", &Recorder::stop);
}

}  // namespace

void bind_base(nb::module_& m) {
    m.def("address", &address, nb::arg("array"));
    bind_isa(m);
    bind_pool(m);
    bind_plan(m);
}

}  // namespace tenon
