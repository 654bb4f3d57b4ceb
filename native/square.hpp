// From gray levels to a prepared image: what src/data/images/square.ts, area.ts and otsu.ts do, to the same numbers.
#pragma once

#include <array>

#include "jpeg.hpp"

namespace cleft {

// Rows and columns, the last two included.
struct LevelBox {
  int32_t top, left, bottom, right;
};

// The longest side to `size` by area and zeros around, into `target` [size, size]. False where a side is to grow.
bool shrinkToSquare(const Levels& levels, int64_t size, uint8_t* target);

// The box around what is brighter than Otsu's threshold; the whole image where nothing is.
LevelBox otsuBox(const uint8_t* levels, int64_t width, int64_t height);

}  // namespace cleft
