// Bindings of the probes.
#include "probe.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>

#include "base/arena.h"
#include "bind.h"
#include "check.h"
#include "simd/tile_flaw.h"

namespace tenon {
namespace {

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Best of several runs of `body()`, which returns how much it did, until `seconds` have passed: amount per
// second.
template <class Body>
double best_rate(double seconds, Body body) {
    double best = 0;
    const double deadline = now() + seconds;
    do {
        const double start = now(), amount = body();
        best = std::max(best, amount / (now() - start));
    } while (now() < deadline);
    return best;
}

int checked_threads(int threads) {
    if (threads == 0) return pool().num_threads();
    if (threads < 0 || threads > pool().num_threads())
        throw std::invalid_argument("threads must be 0 (all) to " + std::to_string(pool().num_threads()));
    return threads;
}

PeakLoop peak_loop(const std::string& kind) {
    const ProbeKernels& kernels = probe_kernels();
    if (kind == "f32") return kernels.f32;
    if (kind == "bf16") return kernels.bf16;
    if (kind == "int8") return kernels.int8;
    throw std::invalid_argument("kind of peak must be f32, bf16 or int8, not " + kind);
}

std::optional<double> matrix_peak(const std::string& kind, int threads, double seconds) {
    const PeakLoop loop = peak_loop(kind);
    if (!loop) return std::nullopt;
    const int parts = checked_threads(threads);
    Pool::Session session(pool());
    int64_t iterations = 1000;
    const auto run = [&] {
        double amounts[1024] = {};
        pool().parallel_for(parts,
                            [&](int64_t begin, int64_t, int) { amounts[begin % 1024] = loop(iterations); });
        return amounts[0] * parts;
    };
    for (double start = now(); run(), now() - start < 0.002; start = now()) iterations *= 2;
    return best_rate(seconds, run);
}

double read_bandwidth(int64_t bytes, int threads, double seconds) {
    const int64_t parts = checked_threads(threads), part = bytes / parts / 4096 * 4096, size = part * parts;
    if (part <= 0) throw std::invalid_argument("a read probe needs at least 4096 bytes per thread");
    const auto read = probe_kernels().read;
    Pool::Session session(pool());
    char* data = static_cast<char*>(map_pages(size_t(size)));
    pool().parallel_for(parts,
                        [&](int64_t i, int64_t, int) { std::memset(data + i * part, 1, size_t(part)); });
    volatile uint64_t sink = 0;
    const double rate = best_rate(seconds, [&] {
        pool().parallel_for(parts, [&](int64_t i, int64_t, int) { sink = read(data + i * part, part); });
        return double(size);
    });
    unmap_pages(data, size_t(size));
    return rate;
}

}  // namespace

void bind_probe(nb::module_& m) {
    m.def("probe_matrix_peak", &matrix_peak, nb::arg("kind"), nb::arg("threads") = 0,
          nb::arg("seconds") = 0.1, nb::call_guard<nb::gil_scoped_release>(),
          "Operations per second (multiply-add: two) of `kind` f32, bf16 (AMX) or int8; None where there is "
          "none. "
          "Best of the runs made within `seconds`.");
    m.def("probe_read_bandwidth", &read_bandwidth, nb::arg("bytes"), nb::arg("threads") = 0,
          nb::arg("seconds") = 0.2, nb::call_guard<nb::gil_scoped_release>(),
          "Bytes per second, best of the passes over a buffer of `bytes` made within `seconds`.");
    m.def("check_tiles", &check_tiles, nb::call_guard<nb::gil_scoped_release>(),
          "What is wrong with the tile kernels of the current instruction set; \"\" if nothing is, or it has "
          "none.");
    m.def(
        "flaw_emulated_tiles", [](int flaw) { g_tile_flaw = TileFlaw(flaw); }, nb::arg("flaw"),
        "For tests: what the emulation does wrong from now on (simd/tile_flaw.h).");
}

}  // namespace tenon
