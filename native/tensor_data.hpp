// Data in and out of tensors, and what a tensor is (shape, dtype, device).
#pragma once

#include "environment.hpp"

namespace cleft {
void defineTensorData(Napi::Object exports, Environment& environment);
}  // namespace cleft
