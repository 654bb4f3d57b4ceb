// The memory of large CPU tensors, kept for the next ones.
#pragma once

#include "environment.hpp"

namespace cleft {
void defineCpuCache(Napi::Object exports, Environment& environment);
}  // namespace cleft
