#include "modes.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/anomaly_mode.h>
#include <torch/version.h>

#include "convert.hpp"

namespace cleft {

namespace {

Napi::Value isGradEnabled(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), c10::GradMode::is_enabled());
}

// setGradEnabled(enabled): what it was before
Napi::Value setGradEnabled(Environment&, const Napi::CallbackInfo& info) {
  const bool before = c10::GradMode::is_enabled();
  c10::GradMode::set_enabled(booleanOf(info.Env(), info[0], {"setGradEnabled", "enabled"}));
  return Napi::Boolean::New(info.Env(), before);
}

Napi::Value enterInferenceMode(Environment& environment, const Napi::CallbackInfo& info) {
  environment.guards->inference.push_back(
      std::make_unique<c10::InferenceMode>(booleanOf(info.Env(), info[0], {"inferenceMode", "enabled"})));
  return info.Env().Undefined();
}

Napi::Value exitInferenceMode(Environment& environment, const Napi::CallbackInfo& info) {
  if (environment.guards->inference.empty()) typeError("inferenceMode: expected an open inference mode to leave");
  environment.guards->inference.pop_back();
  return info.Env().Undefined();
}

Napi::Value isInferenceModeEnabled(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), c10::InferenceMode::is_enabled());
}

// enterAutocast(device type, enabled, dtype or null, cache): what to give to exitAutocast
Napi::Value enterAutocast(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto device = deviceOf(stringOf(env, info[0], {"autocast", "device"}), {"autocast", "device"}).type();
  if (!at::autocast::is_autocast_available(device)) {
    rangeError("autocast: expected a device that has autocast (cpu, cuda, mps, xpu), but received '",
               c10::DeviceTypeName(device, true), "'");
  }
  const bool enabled = booleanOf(env, info[1], {"autocast", "enabled"});
  const bool cache = booleanOf(env, info[3], {"autocast", "cacheEnabled"});
  std::optional<at::ScalarType> dtype;
  if (!isNullish(env, info[2])) {
    dtype = dtypeOf(stringOf(env, info[2], {"autocast", "dtype"}), {"autocast", "dtype"});
    if (dtype != at::kBFloat16 && dtype != at::kHalf && dtype != at::kFloat) {
      rangeError("autocast: expected dtype to be bfloat16, float16 or float32, but received '", dtypeName(*dtype), "'");
    }
  }
  Napi::Object before = Napi::Object::New(env);
  before.Set("device", c10::DeviceTypeName(device, true));
  before.Set("enabled", at::autocast::is_autocast_enabled(device));
  before.Set("dtype", dtypeName(at::autocast::get_autocast_dtype(device)));
  before.Set("cache", at::autocast::is_autocast_cache_enabled());
  at::autocast::set_autocast_enabled(device, enabled);
  if (dtype) at::autocast::set_autocast_dtype(device, *dtype);
  at::autocast::set_autocast_cache_enabled(cache);
  at::autocast::increment_nesting();
  return before;
}

Napi::Value exitAutocast(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Object before = info[0].As<Napi::Object>();
  const auto device =
      deviceOf(stringOf(env, before.Get("device"), {"autocast", "device"}), {"autocast", "device"}).type();
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device, booleanOf(env, before.Get("enabled"), {"autocast", "enabled"}));
  at::autocast::set_autocast_dtype(
      device, dtypeOf(stringOf(env, before.Get("dtype"), {"autocast", "dtype"}), {"autocast", "dtype"}));
  at::autocast::set_autocast_cache_enabled(booleanOf(env, before.Get("cache"), {"autocast", "cacheEnabled"}));
  return env.Undefined();
}

// autocastState(device type): {enabled, dtype}
Napi::Value autocastState(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto device = deviceOf(stringOf(env, info[0], {"autocast", "device"}), {"autocast", "device"}).type();
  Napi::Object state = Napi::Object::New(env);
  state.Set("enabled", at::autocast::is_autocast_enabled(device));
  state.Set("dtype", dtypeName(at::autocast::get_autocast_dtype(device)));
  return state;
}

Napi::Value numThreads(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), at::get_num_threads());
}

Napi::Value setNumThreads(Environment&, const Napi::CallbackInfo& info) {
  const int64_t count = integerOf(info.Env(), info[0], {"setNumThreads", "threads"});
  if (count < 1 || count > 4096) rangeError("setNumThreads: expected threads from 1 to 4096, but received ", count);
  at::set_num_threads(static_cast<int>(count));
  return info.Env().Undefined();
}

Napi::Value defaultDtype(Environment&, const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), dtypeName(c10::get_default_dtype_as_scalartype()));
}

Napi::Value setDefaultDtype(Environment&, const Napi::CallbackInfo& info) {
  const Place place{"setDefaultDtype", "dtype"};
  const auto dtype = dtypeOf(stringOf(info.Env(), info[0], place), place);
  if (!c10::isFloatingType(dtype)) {
    rangeError("setDefaultDtype: expected a floating-point dtype, but received '", dtypeName(dtype), "'");
  }
  c10::set_default_dtype(c10::scalarTypeToTypeMeta(dtype));
  return info.Env().Undefined();
}

Napi::Value setDeterministic(Environment&, const Napi::CallbackInfo& info) {
  at::globalContext().setDeterministicAlgorithms(
      booleanOf(info.Env(), info[0], {"useDeterministicAlgorithms", "enabled"}),
      booleanOf(info.Env(), info[1], {"useDeterministicAlgorithms", "warnOnly"}));
  return info.Env().Undefined();
}

Napi::Value isDeterministic(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), at::globalContext().deterministicAlgorithms());
}

Napi::Value setAnomalyDetection(Environment&, const Napi::CallbackInfo& info) {
  torch::autograd::AnomalyMode::set_enabled(booleanOf(info.Env(), info[0], {"setDetectAnomaly", "enabled"}),
                                            booleanOf(info.Env(), info[1], {"setDetectAnomaly", "checkNan"}));
  return info.Env().Undefined();
}

// Switches of the context: read with one argument, set with two.
Napi::Value contextSwitch(Environment&, const Napi::CallbackInfo& info) {
  const std::string name = stringOf(info.Env(), info[0], {"contextSwitch", "name"});
  auto& context = at::globalContext();
  const bool set = info.Length() > 1;
  const bool value = set && booleanOf(info.Env(), info[1], {name.c_str(), "enabled"});
  bool now = value;
  if (name == "tf32MatrixProducts") {
    set ? context.setAllowTF32CuBLAS(value) : void(now = context.allowTF32CuBLAS());
  } else if (name == "tf32Convolutions") {
    set ? context.setAllowTF32CuDNN(value) : void(now = context.allowTF32CuDNN());
  } else if (name == "cudnnBenchmark") {
    set ? context.setBenchmarkCuDNN(value) : void(now = context.benchmarkCuDNN());
  } else if (name == "flashAttention") {
    set ? context.setSDPUseFlash(value) : void(now = context.userEnabledFlashSDP());
  } else if (name == "memoryEfficientAttention") {
    set ? context.setSDPUseMemEfficient(value) : void(now = context.userEnabledMemEfficientSDP());
  } else if (name == "mathAttention") {
    set ? context.setSDPUseMath(value) : void(now = context.userEnabledMathSDP());
  } else if (name == "cudnnAttention") {
    set ? context.setSDPUseCuDNN(value) : void(now = context.userEnabledCuDNNSDP());
  } else {
    rangeError("contextSwitch: there is no switch '", name, "'");
  }
  return Napi::Boolean::New(info.Env(), now);
}

}  // namespace

void defineModes(Napi::Object exports, Environment& environment) {
  define<isGradEnabled>(exports, environment, "isGradEnabled");
  define<setGradEnabled>(exports, environment, "setGradEnabled");
  define<enterInferenceMode>(exports, environment, "enterInferenceMode", "inferenceMode");
  define<exitInferenceMode>(exports, environment, "exitInferenceMode", "inferenceMode");
  define<isInferenceModeEnabled>(exports, environment, "isInferenceModeEnabled");
  define<enterAutocast>(exports, environment, "enterAutocast", "autocast");
  define<exitAutocast>(exports, environment, "exitAutocast", "autocast");
  define<autocastState>(exports, environment, "autocastState");
  define<numThreads>(exports, environment, "numThreads");
  define<setNumThreads>(exports, environment, "setNumThreads");
  define<defaultDtype>(exports, environment, "defaultDtype");
  define<setDefaultDtype>(exports, environment, "setDefaultDtype");
  define<setDeterministic>(exports, environment, "setDeterministic");
  define<isDeterministic>(exports, environment, "isDeterministic");
  define<setAnomalyDetection>(exports, environment, "setAnomalyDetection");
  define<contextSwitch>(exports, environment, "contextSwitch");
}

}  // namespace cleft
