// What only CUDA has: the share of memory that a process may take, the allocator's segments, captured graphs. Where
// CUDA's headers are not at hand everything here is an error that says so.
#pragma once

#include "environment.hpp"

namespace cleft {
void defineCuda(Napi::Object exports, Environment& environment);
}  // namespace cleft
