// What is wrong with the emulation of tiles (simd/tiles.h): nothing, unless a test wants to see that it is
// noticed (check.h).
#pragma once

namespace tenon {

enum class TileFlaw {
    none,
    no_even,  // sums leave out the even k
    fault,    // raises the signal of an invalid instruction
};
inline TileFlaw g_tile_flaw = TileFlaw::none;

}  // namespace tenon
