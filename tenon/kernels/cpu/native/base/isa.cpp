#include "base/isa.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tenon {
namespace {

struct Features {
    bool avx2 = false, fma = false, f16c = false;
    bool avx512f = false, avx512bw = false, avx512vl = false, avx512dq = false;
    bool avx512_vnni = false, avx512_bf16 = false;
    bool amx_tile = false, amx_bf16 = false, amx_int8 = false;
    bool amx_state = false;  // whether the operating system lets this process use the tiles
};

#if defined(__x86_64__)

// Which register states the operating system saves and restores.
uint64_t os_states() {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t(high) << 32 | low;
}

// AMX state is granted per process, threads and forked children included, on request (Linux 5.16 and later).
// Refused where a hypervisor or a sandbox does not pass the call on, or a thread has a signal stack that is
// too small for the tiles.
bool request_amx_state() {
    constexpr long kArchReqXcompPerm = 0x1023, kXfeatureTileData = 18;
    return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
}

Features detect() {
    Features f;
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return f;  // no OSXSAVE
    const uint64_t states = os_states();
    const bool ymm = (states & 0x6) == 0x6, zmm = (states & 0xe6) == 0xe6;
    const bool tiles = (states & 0x60000) == 0x60000;
    f.fma = ymm && (c >> 12 & 1);
    f.f16c = ymm && (c >> 29 & 1);
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
    f.avx2 = ymm && (b >> 5 & 1);
    f.avx512f = zmm && (b >> 16 & 1);
    f.avx512dq = zmm && (b >> 17 & 1);
    f.avx512bw = zmm && (b >> 30 & 1);
    f.avx512vl = zmm && (b >> 31 & 1);
    f.avx512_vnni = zmm && (c >> 11 & 1);
    f.amx_bf16 = d >> 22 & 1;
    f.amx_tile = d >> 24 & 1;
    f.amx_int8 = d >> 25 & 1;
    f.amx_state = f.amx_tile && tiles && request_amx_state();
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) f.avx512_bf16 = zmm && (a >> 5 & 1);
    return f;
}

#else
Features detect() {
    return {};
}
#endif

const Features& features() {
    static const Features detected = detect();
    return detected;
}

std::atomic<bool> g_assume_amx{false};

bool usable(Isa isa) {
    [[maybe_unused]] const Features& f = features();
    [[maybe_unused]] const bool avx512 = f.avx512f && f.avx512bw && f.avx512vl && f.avx512dq;
    [[maybe_unused]] const bool amx = (f.amx_tile && f.amx_bf16 && f.amx_state) || g_assume_amx;
    switch (isa) {
#ifdef TENON_HAVE_AVX2
        case Isa::avx2:
            return f.avx2 && f.fma && f.f16c;
#endif
#ifdef TENON_HAVE_AVX512
        case Isa::avx512:
        case Isa::amx_emulated:
            return avx512;
#endif
#ifdef TENON_HAVE_AVX512_VNNI
        case Isa::avx512_vnni:
            return avx512 && f.avx512_vnni;
#endif
#ifdef TENON_HAVE_AMX
        case Isa::amx:
            return avx512 && f.avx512_vnni && amx;
#endif
        case Isa::baseline:
            return true;
        default:
            return false;
    }
}

Isa best_isa() {
    Isa best = Isa::baseline;
    for (Isa isa : available_isas())
        if (isa != Isa::amx_emulated) best = isa;
    return best;
}

Isa parse_isa(const std::string& name) {
    std::string list;
    for (Isa isa : available_isas()) {
        if (isa_name(isa) == name) return isa;
        if (isa == Isa::amx_emulated) continue;  // for tests: nobody's choice
        list += (list.empty() ? "" : ", ") + isa_name(isa);
    }
    throw std::runtime_error("instruction set '" + name + "' is not available here; there are: " + list);
}

std::atomic<int> g_isa{-1};

}  // namespace

std::string isa_name(Isa isa) {
    switch (isa) {
        case Isa::baseline:
            return "baseline";
        case Isa::avx2:
            return "avx2";
        case Isa::avx512:
            return "avx512";
        case Isa::avx512_vnni:
            return "avx512-vnni";
        case Isa::amx_emulated:
            return "amx-emulated";
        default:
            return "amx";
    }
}

std::vector<Isa> available_isas() {
    std::vector<Isa> isas;
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_vnni, Isa::amx_emulated, Isa::amx})
        if (usable(isa)) isas.push_back(isa);
    return isas;
}

Isa current_isa() {
    int isa = g_isa.load(std::memory_order_relaxed);
    if (isa < 0) {
        const char* forced = std::getenv("TENON_CPU_ISA");
        isa = int(forced && *forced ? parse_isa(forced) : best_isa());
        g_isa.store(isa);
    }
    return Isa(isa);
}

void set_isa(const std::string& name) {
    g_isa.store(int(parse_isa(name)));
}

void assume_amx() {
    g_assume_amx = true;
}

std::vector<std::pair<std::string, bool>> cpu_features() {
    const Features& f = features();
    return {{"avx2", f.avx2},
            {"fma", f.fma},
            {"f16c", f.f16c},
            {"avx512f", f.avx512f},
            {"avx512bw", f.avx512bw},
            {"avx512vl", f.avx512vl},
            {"avx512dq", f.avx512dq},
            {"avx512_vnni", f.avx512_vnni},
            {"avx512_bf16", f.avx512_bf16},
            {"amx_tile", f.amx_tile},
            {"amx_bf16", f.amx_bf16},
            {"amx_int8", f.amx_int8},
            {"amx_state", f.amx_state}};
}

}  // namespace tenon
