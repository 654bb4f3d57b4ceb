// Work on a thread of Node's pool that settles a Promise.
#pragma once

#include <napi.h>

namespace cleft {

class PromiseWorker : public Napi::AsyncWorker {
 public:
  explicit PromiseWorker(Napi::Env env) : AsyncWorker(env) { napi_create_promise(env, &deferred_, &promise_); }
  // Valid only inside the call that made it.
  napi_value promise() const { return promise_; }

 protected:
  // Resolves or rejects `deferred_`, by calls that throw no C++ exceptions.
  virtual void settle(napi_env env) = 0;

  // In place of AsyncWorker's own, which throws C++ exceptions: where a worker thread ends with this under way, every
  // call fails, and an exception would end the process. Here failures are let pass, since nobody is left to hear them.
  void OnWorkComplete(Napi::Env env, napi_status status) override {
    napi_handle_scope handles;
    if (status != napi_cancelled && napi_open_handle_scope(env, &handles) == napi_ok) {
      settle(env);
      napi_close_handle_scope(env, handles);
    }
    Destroy();
  }

  napi_deferred deferred_ = nullptr;

 private:
  napi_value promise_ = nullptr;
};

}  // namespace cleft
