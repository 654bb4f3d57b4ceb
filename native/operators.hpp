// Operators of the dispatcher, resolved by name and overload in the library that is loaded.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include "convert.hpp"

namespace cleft {

struct Operator {
  explicit Operator(c10::OperatorHandle handle);
  c10::OperatorHandle handle;
  std::string name;
  std::vector<Argument> arguments;
  // In-place operators give back their first argument: no new handle is made for it.
  bool returnsSelf;
};

void defineOperators(Napi::Object exports, Environment& environment);

}  // namespace cleft
