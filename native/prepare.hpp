// From JPEG files to prepared images, on threads of Node's pool.
#pragma once

#include "environment.hpp"

namespace cleft {
void definePrepare(Napi::Object exports, Environment& environment);
}  // namespace cleft
