#include "random.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <c10/core/GeneratorImpl.h>

#include "convert.hpp"

namespace cleft {

namespace {

// A generator made by the user, or the default one of a device.
at::Generator generatorOrDefault(Napi::Env env, napi_value value, const char* operation) {
  if (Napi::Value(env, value).IsString()) {
    const Place place{operation, "device"};
    auto device = deviceOf(stringOf(env, value, place), place);
    if (device.is_cpu()) return at::detail::getDefaultCPUGenerator();
    return at::globalContext().defaultGenerator(device);
  }
  return generatorOf(env, value, {operation, "generator"});
}

Napi::Value makeGenerator(Environment&, const Napi::CallbackInfo& info) {
  const Place place{"Generator", "device"};
  const auto device = deviceOf(stringOf(info.Env(), info[0], place), place);
  if (device.is_cpu()) return {info.Env(), fromGenerator(info.Env(), at::detail::createCPUGenerator())};
  const auto& hooks = at::globalContext().getAcceleratorHooksInterface(device.type());
  return {info.Env(), fromGenerator(info.Env(), hooks.getNewGenerator(device.index()))};
}

uint64_t seedOf(Napi::Env env, napi_value value, const char* operation) {
  uint64_t seed;
  bool lossless;
  if (napi_get_value_bigint_uint64(env, value, &seed, &lossless) == napi_ok && lossless) return seed;
  return static_cast<uint64_t>(integerOf(env, value, {operation, "seed"}));
}

// manualSeed(seed): every default generator of every device
Napi::Value manualSeed(Environment&, const Napi::CallbackInfo& info) {
  at::manual_seed(seedOf(info.Env(), info[0], "manualSeed"));
  return info.Env().Undefined();
}

Napi::Value seedGenerator(Environment&, const Napi::CallbackInfo& info) {
  at::Generator generator = generatorOrDefault(info.Env(), info[0], "manualSeed");
  const uint64_t seed = seedOf(info.Env(), info[1], "manualSeed");
  std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(seed);
  return info.Env().Undefined();
}

Napi::Value initialSeed(Environment&, const Napi::CallbackInfo& info) {
  return Napi::BigInt::New(info.Env(), generatorOrDefault(info.Env(), info[0], "initialSeed").current_seed());
}

Napi::Value generatorState(Environment& environment, const Napi::CallbackInfo& info) {
  at::Generator generator = generatorOrDefault(info.Env(), info[0], "getState");
  std::lock_guard<std::mutex> lock(generator.mutex());
  return {info.Env(), fromTensor(environment, generator.get_state())};
}

Napi::Value setGeneratorState(Environment& environment, const Napi::CallbackInfo& info) {
  at::Generator generator = generatorOrDefault(info.Env(), info[0], "setState");
  const at::Tensor state = tensorOf(environment, info[1], {"setState", "state"});
  if (state.scalar_type() != at::kByte || !state.is_cpu()) {
    typeError("setState: expected a uint8 tensor on the CPU, as getState() gives, but received ",
              dtypeName(state.scalar_type()), " on ", state.device().str());
  }
  std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
  return info.Env().Undefined();
}

Napi::Value generatorDevice(Environment&, const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), generatorOf(info.Env(), info[0], {"Generator", "self"}).device().str());
}

}  // namespace

void defineRandom(Napi::Object exports, Environment& environment) {
  define<makeGenerator>(exports, environment, "makeGenerator", "Generator");
  define<manualSeed>(exports, environment, "manualSeed");
  define<seedGenerator>(exports, environment, "seedGenerator", "manualSeed");
  define<initialSeed>(exports, environment, "initialSeed");
  define<generatorState>(exports, environment, "generatorState", "getState");
  define<setGeneratorState>(exports, environment, "setGeneratorState", "setState");
  define<generatorDevice>(exports, environment, "generatorDevice");
}

}  // namespace cleft
