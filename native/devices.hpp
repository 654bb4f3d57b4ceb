// Accelerators through libtorch's own device-neutral interfaces, so that one source serves CPU and CUDA builds.
#pragma once

#include "environment.hpp"

namespace cleft {
void defineDevices(Napi::Object exports, Environment& environment);
}  // namespace cleft
