// TorchScript modules.
#pragma once

#include "environment.hpp"

namespace cleft {
void defineScript(Napi::Object exports, Environment& environment);
}  // namespace cleft
