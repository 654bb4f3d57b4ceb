// Tensors sent to another worker of this process without a copy.
#pragma once

#include "environment.hpp"

namespace cleft {
// What a closing environment sent and nobody collected is let go.
void forgetParcels(const Environment& sender);
void defineShare(Napi::Object exports, Environment& environment);
}  // namespace cleft
