// Activation checkpointing: what autograd would save is dropped, and computed again when backward asks for it.
#pragma once

#include "environment.hpp"

namespace cleft {
void defineCheckpoint(Napi::Object exports, Environment& environment);
}  // namespace cleft
