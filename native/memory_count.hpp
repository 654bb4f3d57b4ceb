// Counts what tensors of this thread take of the CPU's memory, and the most that they took: the CPU has no allocator
// with statistics, and predictions are held against something.
#pragma once

#include "environment.hpp"

namespace cleft {
void defineMemoryCount(Napi::Object exports, Environment& environment);
}  // namespace cleft
