// The memory of large CPU tensors, kept for the next ones.
#pragma once

#include <napi.h>

namespace cleft {

class Environment;

void defineCpuCache(Napi::Object exports, Environment& environment);

}  // namespace cleft
