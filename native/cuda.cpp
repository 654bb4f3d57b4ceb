#include "cuda.hpp"

#include "convert.hpp"
#include "cuda_headers.hpp"

#ifdef CLEFT_CUDA_HEADERS
#include <ATen/Context.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace cleft {

namespace {

#ifdef CLEFT_CUDA_HEADERS

namespace caching = c10::cuda::CUDACachingAllocator;

const napi_type_tag kGraphTag = {0x81c2d4f0a6b7193e, 0xb5e07d3c92f4681a};

c10::DeviceIndex deviceIndexOf(Napi::Env env, napi_value value, const char* operation) {
  const int count = c10::cuda::device_count();
  if (count == 0) rangeError(operation, ": expected a machine with a GPU, but none was found; run npx cleft doctor");
  const int64_t index =
      isNullish(env, value) ? c10::cuda::current_device() : integerOf(env, value, {operation, "device"});
  if (index < 0 || index >= count) {
    rangeError(operation, ": expected a device from 0 to ", count - 1, ", but received ", index);
  }
  // The allocator knows the devices once CUDA is in use.
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  return static_cast<c10::DeviceIndex>(index);
}

Napi::Value memoryFraction(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(),
                           caching::getMemoryFraction(deviceIndexOf(info.Env(), info[0], "memoryFraction")));
}

Napi::Value setMemoryFraction(Environment&, const Napi::CallbackInfo& info) {
  const double fraction = doubleOf(info.Env(), info[0], {"setMemoryFraction", "fraction"});
  if (!(fraction > 0 && fraction <= 1)) {
    rangeError("setMemoryFraction: expected a fraction above 0 and up to 1, but received ", fraction);
  }
  caching::setMemoryFraction(fraction, deviceIndexOf(info.Env(), info[1], "setMemoryFraction"));
  return info.Env().Undefined();
}

Napi::Number bytes(Napi::Env env, size_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

// memorySnapshot(): the allocator's segments with their blocks
Napi::Value memorySnapshot(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  deviceIndexOf(env, env.Null(), "memorySnapshot");
  Napi::Array segments = Napi::Array::New(env);
  for (const auto& segment : caching::snapshot().segments) {
    Napi::Object each = Napi::Object::New(env);
    each.Set("device", Napi::Number::New(env, segment.device));
    each.Set("address", Napi::BigInt::New(env, static_cast<uint64_t>(segment.address)));
    each.Set("bytes", bytes(env, segment.total_size));
    each.Set("allocated", bytes(env, segment.allocated_size));
    each.Set("active", bytes(env, segment.active_size));
    each.Set("isLarge", Napi::Boolean::New(env, segment.is_large));
    each.Set("isPrivate", Napi::Boolean::New(env, segment.owner_private_pool_id != c10::MempoolId_t{0, 0}));
    Napi::Array blocks = Napi::Array::New(env);
    for (const auto& block : segment.blocks) {
      Napi::Object part = Napi::Object::New(env);
      part.Set("bytes", bytes(env, block.size));
      part.Set("requested", bytes(env, block.requested_size));
      part.Set("state", block.allocated ? "allocated" : block.active ? "awaiting a stream" : "free");
      blocks[blocks.Length()] = part;
    }
    each.Set("blocks", blocks);
    segments[segments.Length()] = each;
  }
  return segments;
}

at::cuda::CUDAGraph& graphOf(Napi::Env env, napi_value value, const char* operation) {
  bool ours = false;
  if (Napi::Value(env, value).IsExternal()) napi_check_object_type_tag(env, value, &kGraphTag, &ours);
  if (!ours) typeError(operation, ": expected a Graph, but received ", describe(env, value));
  return *Napi::External<at::cuda::CUDAGraph>(env, value).Data();
}

Napi::Value makeGraph(Environment&, const Napi::CallbackInfo& info) {
  deviceIndexOf(info.Env(), info.Env().Null(), "Graph");
  auto external = Napi::External<at::cuda::CUDAGraph>::New(info.Env(), new at::cuda::CUDAGraph(),
                                                           [](Napi::Env, at::cuda::CUDAGraph* dying) { delete dying; });
  napi_type_tag_object(info.Env(), external, &kGraphTag);
  return external;
}

// The default generator is registered by every capture; others by name up to libtorch 2.13, and by themselves later.
template <typename Graph>
void registerGenerator(Graph& graph, const at::Generator& generator) {
  if constexpr (requires { graph.register_generator_state(generator); }) graph.register_generator_state(generator);
}

// beginCapture(graph, pool: another graph or null, generators): on the current stream, which must not be the default
// one
Napi::Value beginCapture(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto& graph = graphOf(env, info[0], "Graph.capture");
  const auto pool = isNullish(env, info[1]) ? c10::MempoolId_t{0, 0} : graphOf(env, info[1], "Graph.capture").pool();
  const Napi::Array generators = info[2].As<Napi::Array>();
  for (uint32_t k = 0; k < generators.Length(); ++k) {
    registerGenerator(graph, generatorOf(env, generators.Get(k), {"Graph.capture", "generators"}));
  }
  // Threads of the loader may copy and allocate meanwhile: only what this thread does wrong ends the capture.
  graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
  return env.Undefined();
}

Napi::Value endCapture(Environment&, const Napi::CallbackInfo& info) {
  graphOf(info.Env(), info[0], "Graph.capture").capture_end();
  return info.Env().Undefined();
}

Napi::Value replayGraph(Environment&, const Napi::CallbackInfo& info) {
  graphOf(info.Env(), info[0], "Graph.replay").replay();
  return info.Env().Undefined();
}

Napi::Value resetGraph(Environment&, const Napi::CallbackInfo& info) {
  graphOf(info.Env(), info[0], "Graph.reset").reset();
  return info.Env().Undefined();
}

// setSyncDebug(mode): what happens where the host waits for the device: 0 nothing, 1 a warning, 2 an error
Napi::Value setSyncDebug(Environment&, const Napi::CallbackInfo& info) {
  const int64_t mode = integerOf(info.Env(), info[0], {"setSyncDebug", "mode"});
  if (mode < 0 || mode > 2) rangeError("setSyncDebug: expected a mode from 0 to 2, but received ", mode);
  c10::cuda::warning_state().set_sync_debug_mode(static_cast<c10::cuda::SyncDebugMode>(mode));
  return info.Env().Undefined();
}

#else

template <int>
Napi::Value without(Environment&, const Napi::CallbackInfo&) {
#ifdef CLEFT_TORCH_CUDA
  rangeError(
      "expected an add-on that was built with CUDA's headers (cuda_runtime_api.h, crt/host_config.h, nv/target), but "
      "they were not found when it was built; run: npx cleft setup --cuda auto --force");
#else
  rangeError("expected a CUDA build of libtorch, but this is a CPU build; run: npx cleft setup --cuda auto");
#endif
}
constexpr Handler memoryFraction = without<0>, setMemoryFraction = without<1>, memorySnapshot = without<2>,
                  makeGraph = without<3>, beginCapture = without<4>, endCapture = without<5>, replayGraph = without<6>,
                  resetGraph = without<7>, setSyncDebug = without<8>;

#endif

}  // namespace

void defineCuda(Napi::Object exports, Environment& environment) {
  define<memoryFraction>(exports, environment, "memoryFraction");
  define<setMemoryFraction>(exports, environment, "setMemoryFraction");
  define<memorySnapshot>(exports, environment, "memorySnapshot");
  define<makeGraph>(exports, environment, "makeGraph", "Graph");
  define<beginCapture>(exports, environment, "beginCapture", "Graph.capture");
  define<endCapture>(exports, environment, "endCapture", "Graph.capture");
  define<replayGraph>(exports, environment, "replayGraph", "Graph.replay");
  define<resetGraph>(exports, environment, "resetGraph", "Graph.reset");
  define<setSyncDebug>(exports, environment, "setSyncDebug");
}

}  // namespace cleft
