// Instruction sets: what was compiled, what this machine grants, which one is in use.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tenon {

// In order of preference. amx_emulated computes what the AMX kernels do, tile by tile, without AMX: for
// tests.
enum class Isa { baseline, avx2, avx512, avx512_vnni, amx_emulated, amx };

std::string isa_name(Isa isa);

// Compiled into this module and usable on this machine, best last (amx_emulated is listed, never a default).
std::vector<Isa> available_isas();

// The instruction set kernels run with: TENON_CPU_ISA, else the best. Throws std::runtime_error, listing what
// there is, when the forced one is unknown or unusable.
Isa current_isa();

// Change it from now on; plans recorded before keep theirs. Throws as above.
void set_isa(const std::string& name);

// For tests, whose signal handler executes what the processor does not know: AMX is usable from now on.
void assume_amx();

// Name and presence of each processor feature that matters here.
std::vector<std::pair<std::string, bool>> cpu_features();

}  // namespace tenon
