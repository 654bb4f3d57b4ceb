// Gradients: backward, grad, hooks, custom functions and activation checkpointing with callbacks into TypeScript.
#pragma once

#include "environment.hpp"

namespace cleft {
void defineAutograd(Napi::Object exports, Environment& environment);
}  // namespace cleft
