// Memory-mapped files under tensors, and bytes of tensors for writing.
#pragma once

#include "environment.hpp"

namespace cleft {
void defineFiles(Napi::Object exports, Environment& environment);
}  // namespace cleft
