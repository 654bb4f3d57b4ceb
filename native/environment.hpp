// What one JavaScript environment (the main thread, or one worker) owns: its tensors, its operators, its pending
// callbacks. Nothing here is static, so that several workers can load the add-on side by side.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>
#include <napi.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "handle_table.hpp"

namespace cleft {

struct Binding;
struct Operator;
class GuardStack;
class Mapping;

// A JavaScript function held by C++ objects (autograd nodes, hooks) that may die on any thread. The reference itself
// is only ever touched on the JavaScript thread: a dying holder hands it to the environment, which drops it later.
class Callback {
 public:
  Callback(napi_env env, napi_value function);
  ~Callback();
  Callback(const Callback&) = delete;
  Callback& operator=(const Callback&) = delete;
  // Calls the function inside a JavaScript handle scope of the caller. A JavaScript exception is parked in the
  // environment and leaves as a C++ exception, to travel through libtorch and be thrown again at the boundary.
  napi_value call(const std::vector<napi_value>& arguments) const;
  napi_env env() const { return env_; }

 private:
  struct Mailbox;
  friend class Environment;
  napi_env env_;
  napi_ref reference_;
  std::shared_ptr<Mailbox> mailbox_;
  std::thread::id thread_;
};

struct Callback::Mailbox {
  std::mutex mutex;
  std::atomic<bool> any{false};
  bool open = true;  // false once the environment is gone
  std::vector<napi_ref> dead;
};

class Environment {
 public:
  explicit Environment(napi_env env);
  ~Environment();
  static Environment& of(napi_env env);

  napi_env env;
  std::thread::id thread;
  HandleTable tensors;
  std::vector<std::unique_ptr<Binding>> bindings;
  std::vector<std::unique_ptr<Operator>> operators;
  torch::jit::Stack stack;  // shared by nested calls, each works above its caller's values
  std::unique_ptr<GuardStack> guards;
  std::vector<std::weak_ptr<Mapping>> mappings;  // files that are mapped into memory
  napi_ref errorConstructor = nullptr;           // TorchError of src/torch/errors.ts
  napi_ref parkedException = nullptr;            // thrown by a callback, on its way through libtorch
  std::shared_ptr<Callback::Mailbox> mailbox;

  bool hasDeadCallbacks() const { return mailbox->any.load(std::memory_order_relaxed); }
  void dropDeadCallbacks();
  // Tells TypeScript (which reads `scopeDepth` without a call) how many scopes are open.
  void scopeChanged() {
    if (scopeDepth != nullptr) *scopeDepth = static_cast<int32_t>(tensors.scopeDepth());
  }
  int32_t* scopeDepth = nullptr;  // inside an Int32Array that TypeScript made and this environment refers to
  napi_ref scopeDepthHolder = nullptr;
  void park(napi_value exception);
};

// The C++ face of a JavaScript exception that was parked.
struct ParkedException : std::exception {
  const char* what() const noexcept override { return "an exception was thrown by a JavaScript callback"; }
};

}  // namespace cleft
