#pragma once

#include "environment.hpp"

namespace cleft {

// A scope around a callback into TypeScript, left on every way out.
class ScopeGuard {
 public:
  explicit ScopeGuard(Environment& environment) : environment_(environment) {
    environment.tensors.enterScope();
    environment.scopeChanged();
  }
  ~ScopeGuard() {
    environment_.tensors.exitScope({});
    environment_.scopeChanged();
  }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Environment& environment_;
};

}  // namespace cleft
