// Thread-local modes of libtorch: gradients, inference, autocast, threads, default dtype, determinism.
#pragma once

#include <c10/core/InferenceMode.h>

#include <memory>
#include <vector>

#include "environment.hpp"

namespace cleft {

// Guards that TypeScript opens and closes in separate calls, innermost last.
class GuardStack {
 public:
  std::vector<std::unique_ptr<c10::InferenceMode>> inference;
};

void defineModes(Napi::Object exports, Environment& environment);

}  // namespace cleft
