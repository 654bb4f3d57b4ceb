// Random generators: seeds and states, per device.
#pragma once

#include "environment.hpp"

namespace cleft {
void defineRandom(Napi::Object exports, Environment& environment);
}  // namespace cleft
