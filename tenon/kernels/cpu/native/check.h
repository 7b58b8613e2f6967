// Whether tiles do on this machine what they should.
#pragma once

#include <string>

namespace tenon {

// Runs a small linear layer and a small attention, on random data, with the tile kernels of the current
// instruction set and with the AVX-512 kernels, whose bits they must have (isa/chains.h says why). What is
// wrong with them, an instruction that faults included; "" if nothing is, or there are none. Takes about a
// millisecond.
std::string check_tiles();

}  // namespace tenon
