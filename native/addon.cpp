// The add-on's entry: one Environment for each JavaScript environment that loads it.
#include <ATen/Context.h>

#include "autograd.hpp"
#include "boundary.hpp"
#include "checkpoint.hpp"
#include "convert.hpp"
#include "cpu_cache.hpp"
#include "cuda.hpp"
#include "devices.hpp"
#include "distributed.hpp"
#include "files.hpp"
#include "memory_count.hpp"
#include "modes.hpp"
#include "operators.hpp"
#include "prepare.hpp"
#include "profiler.hpp"
#include "random.hpp"
#include "scope_guard.hpp"
#include "script.hpp"
#include "share.hpp"
#include "tensor_data.hpp"

namespace cleft {

namespace {

// initialize(TorchError, scopeDepth: Int32Array of one): what native code needs of TypeScript
Napi::Value initialize(Environment& environment, const Napi::CallbackInfo& info) {
  napi_env env = info.Env();
  napi_create_reference(env, info[0], 1, &environment.errorConstructor);
  napi_create_reference(env, info[1], 1, &environment.scopeDepthHolder);
  environment.scopeDepth = info[1].As<Napi::Int32Array>().Data();
  environment.scopeChanged();
  return info.Env().Undefined();
}

Napi::Value release(Environment& environment, const Napi::CallbackInfo& info) {
  double handle = -1;
  napi_get_value_double(info.Env(), info[0], &handle);
  return Napi::Boolean::New(info.Env(), environment.tensors.release(handle));
}

Napi::Value keep(Environment& environment, const Napi::CallbackInfo& info) {
  tensorOf(environment, info[0], {"keep", "tensor"});
  environment.tensors.keep(info[0].As<Napi::Number>().DoubleValue());
  return info.Env().Undefined();
}

Napi::Value isAlive(Environment& environment, const Napi::CallbackInfo& info) {
  double handle = -1;
  napi_get_value_double(info.Env(), info[0], &handle);
  return Napi::Boolean::New(info.Env(), environment.tensors.find(handle) != nullptr);
}

// alias(tensor): another handle of the same tensor
Napi::Value alias(Environment& environment, const Napi::CallbackInfo& info) {
  return {info.Env(), fromTensor(environment, tensorOf(environment, info[0], {"alias", "tensor"}))};
}

Napi::Value enterScope(Environment& environment, const Napi::CallbackInfo& info) {
  environment.tensors.enterScope();
  environment.scopeChanged();
  return info.Env().Undefined();
}

Napi::Value exitScope(Environment& environment, const Napi::CallbackInfo& info) {
  environment.tensors.exitScope(handlesOf(info.Env(), info[0], {"scope", "kept"}));
  environment.scopeChanged();
  return info.Env().Undefined();
}

Napi::Value createScope(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), environment.tensors.createScope());
}

uint32_t scopeId(const Napi::CallbackInfo& info) {
  return static_cast<uint32_t>(integerOf(info.Env(), info[0], {"Scope", "id"}));
}

Napi::Value resumeScope(Environment& environment, const Napi::CallbackInfo& info) {
  environment.tensors.resumeScope(scopeId(info));
  environment.scopeChanged();
  return info.Env().Undefined();
}

Napi::Value suspendScope(Environment& environment, const Napi::CallbackInfo& info) {
  environment.tensors.suspendScope(scopeId(info), handlesOf(info.Env(), info[1], {"Scope.run", "kept"}));
  environment.scopeChanged();
  return info.Env().Undefined();
}

Napi::Value disposeScope(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), environment.tensors.disposeScope(scopeId(info)));
}

// counters(): {live, made, freed}
Napi::Value counters(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("live", static_cast<double>(environment.tensors.live()));
  result.Set("made", static_cast<double>(environment.tensors.made()));
  result.Set("freed", static_cast<double>(environment.tensors.freed()));
  return result;
}

Napi::Value liveBytes(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(environment.tensors.bytes()));
}

Napi::Value liveHandles(Environment& environment, const Napi::CallbackInfo& info) {
  const auto handles = environment.tensors.handles();
  Napi::Array result = Napi::Array::New(info.Env(), handles.size());
  for (size_t k = 0; k < handles.size(); ++k) result[k] = Napi::Number::New(info.Env(), handles[k]);
  return result;
}

Napi::Object start(Napi::Env env, Napi::Object exports) {
  auto* environment = new Environment(env);
  // Without it, sparse tensors can be made whose indices lie outside of them, and kernels read there.
  at::globalContext().setCheckSparseTensorInvariants(true);
  napi_set_instance_data(
      env, environment,
      [](napi_env, void* data, void*) {
        auto* dying = static_cast<Environment*>(data);
        forgetParcels(*dying);
        delete dying;
      },
      nullptr);
  define<initialize>(exports, *environment, "initialize");
  define<release>(exports, *environment, "release");
  define<keep>(exports, *environment, "keep");
  define<isAlive>(exports, *environment, "isAlive");
  define<alias>(exports, *environment, "alias");
  define<enterScope>(exports, *environment, "enterScope");
  define<exitScope>(exports, *environment, "exitScope");
  define<createScope>(exports, *environment, "createScope");
  define<resumeScope>(exports, *environment, "resumeScope");
  define<suspendScope>(exports, *environment, "suspendScope");
  define<disposeScope>(exports, *environment, "disposeScope");
  define<counters>(exports, *environment, "counters");
  define<liveBytes>(exports, *environment, "liveBytes");
  define<liveHandles>(exports, *environment, "liveHandles");
  defineOperators(exports, *environment);
  defineTensorData(exports, *environment);
  defineAutograd(exports, *environment);
  defineCheckpoint(exports, *environment);
  defineModes(exports, *environment);
  defineRandom(exports, *environment);
  defineDevices(exports, *environment);
  defineCuda(exports, *environment);
  defineCpuCache(exports, *environment);
  defineMemoryCount(exports, *environment);
  defineDistributed(exports, *environment);
  defineFiles(exports, *environment);
  defineShare(exports, *environment);
  defineScript(exports, *environment);
  definePrepare(exports, *environment);
  defineProfiler(exports, *environment);
  return exports;
}

Napi::Object initializeModule(Napi::Env env, Napi::Object exports) { return start(env, exports); }
NODE_API_MODULE(cleft, initializeModule)

}  // namespace

}  // namespace cleft
