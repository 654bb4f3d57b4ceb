#include "environment.hpp"

#include <c10/core/AutogradState.h>

#include "boundary.hpp"
#include "modes.hpp"
#include "operators.hpp"

namespace cleft {

Environment::Environment(napi_env env)
    : env(env),
      thread(std::this_thread::get_id()),
      guards(std::make_unique<GuardStack>()),
      mailbox(std::make_shared<Callback::Mailbox>()) {
  // Backward stays on the thread that called it, on every device: callbacks into JavaScript could not run elsewhere
  // while this thread waits inside backward().
  c10::AutogradState::get_tls_state().set_multithreading_enabled(false);
}

Environment::~Environment() {
  tensors.clear();
  std::lock_guard<std::mutex> lock(mailbox->mutex);
  mailbox->open = false;
}

Environment& Environment::of(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return *static_cast<Environment*>(data);
}

void Environment::dropDeadCallbacks() {
  if (!hasDeadCallbacks()) return;
  std::vector<napi_ref> dead;
  {
    std::lock_guard<std::mutex> lock(mailbox->mutex);
    dead.swap(mailbox->dead);
    mailbox->any = false;
  }
  for (napi_ref reference : dead) napi_delete_reference(env, reference);
}

void Environment::park(napi_value exception) {
  if (parkedException != nullptr) napi_delete_reference(env, parkedException);
  parkedException = nullptr;
  // napi_create_reference takes objects only: what else was thrown travels in an array
  napi_value holder;
  napi_create_array_with_length(env, 1, &holder);
  napi_set_element(env, holder, 0, exception);
  napi_create_reference(env, holder, 1, &parkedException);
}

Callback::Callback(napi_env env, napi_value function)
    : env_(env), mailbox_(Environment::of(env).mailbox), thread_(std::this_thread::get_id()) {
  if (napi_create_reference(env, function, 1, &reference_) != napi_ok) typeError("expected a function to call back");
}

Callback::~Callback() {
  std::lock_guard<std::mutex> lock(mailbox_->mutex);
  if (!mailbox_->open) return;
  mailbox_->dead.push_back(reference_);
  mailbox_->any = true;
}

napi_value Callback::call(const std::vector<napi_value>& arguments) const {
  TORCH_CHECK(std::this_thread::get_id() == thread_,
              "expected a callback into JavaScript to run on the thread that made it, but it was reached from another: "
              "run backward() on the thread that built the graph");
  napi_value function, receiver, result;
  napi_get_reference_value(env_, reference_, &function);
  napi_get_undefined(env_, &receiver);
  if (napi_call_function(env_, receiver, function, arguments.size(), arguments.data(), &result) == napi_ok)
    return result;
  napi_value exception;
  napi_get_and_clear_last_exception(env_, &exception);
  Environment::of(env_).park(exception);
  throw ParkedException();
}

}  // namespace cleft
