// Memory that a thread works in.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace cleft {

struct FreeAligned {
  void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};

using Scratch = std::unique_ptr<float[], FreeAligned>;

// Floats that begin on a cache line and are not set.
inline Scratch scratchOf(int64_t count) {
  return Scratch(
      static_cast<float*>(::operator new[](static_cast<size_t>(count) * sizeof(float), std::align_val_t(64))));
}

inline int64_t roundedUp(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

}  // namespace cleft
