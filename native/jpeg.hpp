// A decoder for the JPEG files that radiographs mostly are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cleft {

// Samples of one channel, rows `step` apart.
struct Levels {
  int64_t width = 0, height = 0, step = 0;
  std::vector<uint8_t> samples;
};

// Decodes a baseline JPEG of 8 bits that is gray, or in colours that are all gray, to the bit as libjpeg does (its
// accurate integer transform). False for every other file and for every one with anything amiss (a truncated one, bits
// that are no code, a marker that is out of place, EXIF): another decoder is to read it, or to say what is wrong.
// `levels` is then of no use; its memory may be used again.
bool decodeJpeg(const uint8_t* bytes, size_t count, int64_t mostPixels, Levels& levels);

}  // namespace cleft
