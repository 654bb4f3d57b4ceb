#include "devices.hpp"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/version.h>

#include "convert.hpp"
#include "cuda_headers.hpp"

namespace cleft {

namespace {

const napi_type_tag kEventTag = {0x5a7d3c1e9b0f4e62, 0xa4176c8d2e5b3f90};

c10::DeviceType accelerator(const char* operation) {
  const auto found = at::accelerator::getAccelerator();
  if (!found || at::accelerator::deviceCount() == 0) {
    throw ArgumentError(ArgumentError::Kind::Range,
                        c10::str(operation,
                                 ": expected a machine with a GPU that this libtorch supports, but none was "
                                 "found; run npx cleft doctor"));
  }
  return *found;
}

c10::DeviceIndex indexOf(Napi::Env env, napi_value value, const char* operation) {
  accelerator(operation);
  const int64_t index =
      isNullish(env, value) ? at::accelerator::getDeviceIndex() : integerOf(env, value, {operation, "device"});
  if (index < 0 || index >= at::accelerator::deviceCount()) {
    rangeError(operation, ": expected a device from 0 to ", at::accelerator::deviceCount() - 1, ", but received ",
               index);
  }
  return static_cast<c10::DeviceIndex>(index);
}

int availableDevices() {
  const auto found = at::accelerator::getAccelerator();
  return found ? at::accelerator::deviceCount() : 0;
}

// info(): what is loaded; also what the set-up asks of a fresh add-on
Napi::Value information(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("torchVersion", TORCH_VERSION);
#ifdef CLEFT_TORCH_CUDA
  result.Set("cudaBuild", true);
#else
  result.Set("cudaBuild", false);
#endif
#ifdef CLEFT_CUDA_HEADERS
  result.Set("cudaHeaders", true);
#else
  result.Set("cudaHeaders", false);
#endif
  Napi::Array devices = Napi::Array::New(env);
  const int count = availableDevices();
  for (int k = 0; k < count; ++k) {
    const auto memory = at::accelerator::getMemoryInfo(static_cast<c10::DeviceIndex>(k));
    Napi::Object device = Napi::Object::New(env);
    device.Set("name", c10::DeviceTypeName(*at::accelerator::getAccelerator(), true) + ":" + std::to_string(k));
    device.Set("freeMemory", static_cast<double>(memory.first));
    device.Set("totalMemory", static_cast<double>(memory.second));
    devices[devices.Length()] = device;
  }
  result.Set("cudaAvailable", at::globalContext().hasCUDA() && count > 0);
  result.Set("devices", devices);
  result.Set("threads", at::get_num_threads());
  result.Set("cpuCapability", at::get_cpu_capability());
  return result;
}

Napi::Value deviceCount(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), availableDevices());
}

Napi::Value currentDevice(Environment&, const Napi::CallbackInfo& info) {
  accelerator("currentDevice");
  return Napi::Number::New(info.Env(), at::accelerator::getDeviceIndex());
}

Napi::Value setDevice(Environment&, const Napi::CallbackInfo& info) {
  at::accelerator::setDeviceIndex(indexOf(info.Env(), info[0], "setDevice"));
  return info.Env().Undefined();
}

Napi::Value synchronize(Environment&, const Napi::CallbackInfo& info) {
  at::accelerator::synchronizeDevice(indexOf(info.Env(), info[0], "synchronize"));
  return info.Env().Undefined();
}

Napi::Value emptyCache(Environment&, const Napi::CallbackInfo& info) {
  accelerator("emptyCache");
  at::accelerator::emptyCache();
  return info.Env().Undefined();
}

// memoryStatistics(device): bytes {allocated, reserved, peakAllocated, peakReserved, free, total}
Napi::Value memoryStatistics(Environment&, const Napi::CallbackInfo& info) {
  const auto index = indexOf(info.Env(), info[0], "memoryStatistics");
  const auto statistics = at::accelerator::getDeviceStats(index);
  const auto memory = at::accelerator::getMemoryInfo(index);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("allocated", static_cast<double>(statistics.allocated_bytes[0].current));
  result.Set("peakAllocated", static_cast<double>(statistics.allocated_bytes[0].peak));
  result.Set("reserved", static_cast<double>(statistics.reserved_bytes[0].current));
  result.Set("peakReserved", static_cast<double>(statistics.reserved_bytes[0].peak));
  result.Set("outOfMemory", static_cast<double>(statistics.num_ooms));
  result.Set("free", static_cast<double>(memory.first));
  result.Set("total", static_cast<double>(memory.second));
  return result;
}

Napi::Value resetPeakMemory(Environment&, const Napi::CallbackInfo& info) {
  at::accelerator::resetPeakStats(indexOf(info.Env(), info[0], "resetPeakMemory"));
  return info.Env().Undefined();
}

// Streams travel as three numbers: id, device index, device type.
Napi::Value fromStream(Napi::Env env, const c10::Stream& stream) {
  Napi::Array packed = Napi::Array::New(env, 3);
  packed[0u] = Napi::Number::New(env, static_cast<double>(stream.id()));
  packed[1u] = Napi::Number::New(env, stream.device_index());
  packed[2u] = Napi::Number::New(env, static_cast<int>(stream.device_type()));
  return packed;
}

c10::Stream streamOf(Napi::Env env, napi_value value, const char* operation) {
  const auto packed = integersOf(env, value, {operation, "stream"});
  if (packed.size() != 3) typeError(operation, ": expected a Stream");
  return c10::Stream::unpack3(packed[0], static_cast<c10::DeviceIndex>(packed[1]),
                              static_cast<c10::DeviceType>(packed[2]));
}

Napi::Value currentStream(Environment&, const Napi::CallbackInfo& info) {
  return fromStream(info.Env(), at::accelerator::getCurrentStream(indexOf(info.Env(), info[0], "currentStream")));
}

Napi::Value newStream(Environment&, const Napi::CallbackInfo& info) {
  const auto index = indexOf(info.Env(), info[0], "Stream");
  const c10::impl::VirtualGuardImpl guard(accelerator("Stream"));
  return fromStream(info.Env(),
                    guard.getNewStream(c10::Device(guard.type(), index),
                                       static_cast<int>(integerOf(info.Env(), info[1], {"Stream", "priority"}))));
}

Napi::Value setStream(Environment&, const Napi::CallbackInfo& info) {
  accelerator("setStream");
  at::accelerator::setCurrentStream(streamOf(info.Env(), info[0], "setStream"));
  return info.Env().Undefined();
}

Napi::Value synchronizeStream(Environment&, const Napi::CallbackInfo& info) {
  accelerator("Stream.synchronize");
  streamOf(info.Env(), info[0], "Stream.synchronize").synchronize();
  return info.Env().Undefined();
}

// recordStream(tensor, stream): its memory is not reused before the stream has done with it
Napi::Value recordStream(Environment& environment, const Napi::CallbackInfo& info) {
  accelerator("Stream.keepAlive");
  tensorOf(environment, info[0], {"Stream.keepAlive", "tensor"})
      .record_stream(streamOf(info.Env(), info[1], "Stream.keepAlive"));
  return info.Env().Undefined();
}

c10::Event& eventOf(Napi::Env env, napi_value value, const char* operation) {
  bool ours = false;
  if (Napi::Value(env, value).IsExternal()) napi_check_object_type_tag(env, value, &kEventTag, &ours);
  if (!ours) typeError(operation, ": expected an Event, but received ", describe(env, value));
  return *Napi::External<c10::Event>(env, value).Data();
}

Napi::Value newEvent(Environment&, const Napi::CallbackInfo& info) {
  const auto flag = booleanOf(info.Env(), info[0], {"Event", "timing"}) ? c10::EventFlag::BACKEND_DEFAULT
                                                                        : c10::EventFlag::PYTORCH_DEFAULT;
  auto external = Napi::External<c10::Event>::New(info.Env(), new c10::Event(accelerator("Event"), flag),
                                                  [](Napi::Env, c10::Event* dying) { delete dying; });
  napi_type_tag_object(info.Env(), external, &kEventTag);
  return external;
}

Napi::Value recordEvent(Environment&, const Napi::CallbackInfo& info) {
  eventOf(info.Env(), info[0], "Event.record").record(streamOf(info.Env(), info[1], "Event.record"));
  return info.Env().Undefined();
}

Napi::Value waitEvent(Environment&, const Napi::CallbackInfo& info) {
  eventOf(info.Env(), info[0], "Event.wait").block(streamOf(info.Env(), info[1], "Event.wait"));
  return info.Env().Undefined();
}

Napi::Value queryEvent(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), eventOf(info.Env(), info[0], "Event.query").query());
}

Napi::Value synchronizeEvent(Environment&, const Napi::CallbackInfo& info) {
  eventOf(info.Env(), info[0], "Event.synchronize").synchronize();
  return info.Env().Undefined();
}

// elapsedTime(from, to): milliseconds
Napi::Value elapsedTime(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Number::New(
      info.Env(),
      eventOf(info.Env(), info[0], "Event.elapsedTime").elapsedTime(eventOf(info.Env(), info[1], "Event.elapsedTime")));
}

}  // namespace

void releaseCachedMemory() {
  if (availableDevices() > 0) at::accelerator::emptyCache();
}

void defineDevices(Napi::Object exports, Environment& environment) {
  define<information>(exports, environment, "info");
  define<deviceCount>(exports, environment, "deviceCount");
  define<currentDevice>(exports, environment, "currentDevice");
  define<setDevice>(exports, environment, "setDevice");
  define<synchronize>(exports, environment, "synchronize");
  define<emptyCache>(exports, environment, "emptyCache");
  define<memoryStatistics>(exports, environment, "memoryStatistics");
  define<resetPeakMemory>(exports, environment, "resetPeakMemory");
  define<currentStream>(exports, environment, "currentStream");
  define<newStream>(exports, environment, "newStream");
  define<setStream>(exports, environment, "setStream");
  define<synchronizeStream>(exports, environment, "synchronizeStream");
  define<recordStream>(exports, environment, "recordStream", "Stream.keepAlive");
  define<newEvent>(exports, environment, "newEvent");
  define<recordEvent>(exports, environment, "recordEvent");
  define<waitEvent>(exports, environment, "waitEvent");
  define<queryEvent>(exports, environment, "queryEvent");
  define<synchronizeEvent>(exports, environment, "synchronizeEvent");
  define<elapsedTime>(exports, environment, "elapsedTime");
}

}  // namespace cleft
