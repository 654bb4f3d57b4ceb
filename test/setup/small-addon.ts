/** All of an add-on in one file, which compiles in seconds: it says what it is, and that it is none of the package's. */
export const SMALL_SOURCE = `
#include <ATen/Parallel.h>
#include <napi.h>
#include <torch/version.h>
Napi::Value info(const Napi::CallbackInfo& call) {
  Napi::Object result = Napi::Object::New(call.Env());
  result.Set("torchVersion", TORCH_VERSION);
#ifdef CLEFT_TORCH_CUDA
  result.Set("cudaBuild", true);
#else
  result.Set("cudaBuild", false);
#endif
  result.Set("devices", Napi::Array::New(call.Env()));
  result.Set("threads", at::get_num_threads());
  result.Set("cpuCapability", "EXTRA");
  return result;
}
Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("info", Napi::Function::New(env, info));
  return exports;
}
NODE_API_MODULE(NODE_GYP_MODULE_NAME, init)
`
