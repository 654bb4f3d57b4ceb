// How often and how long operators run.
#pragma once

#include "environment.hpp"

namespace cleft {
void defineProfiler(Napi::Object exports, Environment& environment);
}  // namespace cleft
