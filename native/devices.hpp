// Accelerators through libtorch's own device-neutral interfaces, so that one source serves CPU and CUDA builds.
#pragma once

#include "environment.hpp"

namespace cleft {
// Gives the memory that the accelerator's caching allocator holds for reuse back to the driver.
void releaseCachedMemory();
void defineDevices(Napi::Object exports, Environment& environment);
}  // namespace cleft
