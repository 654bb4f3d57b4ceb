#include "checkpoint.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>

#include "convert.hpp"
#include "scope_guard.hpp"

namespace cleft {

namespace {

struct AutocastState {
  c10::DeviceType device;
  bool enabled;
  at::ScalarType dtype;
};

std::vector<AutocastState> currentAutocast() {
  std::vector<AutocastState> states;
  for (const auto device : {at::kCPU, at::kCUDA}) {
    states.push_back({device, at::autocast::is_autocast_enabled(device), at::autocast::get_autocast_dtype(device)});
  }
  return states;
}

void applyAutocast(const std::vector<AutocastState>& states) {
  for (const auto& state : states) {
    at::autocast::set_autocast_enabled(state.device, state.enabled);
    at::autocast::set_autocast_dtype(state.device, state.dtype);
  }
}

using RandomStates = std::vector<std::pair<at::Generator, at::Tensor>>;

at::Tensor stateOf(at::Generator generator) {
  std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state();
}

RandomStates currentRandom(const std::vector<at::Tensor>& inputs) {
  RandomStates states;
  const auto remember = [&](const at::Generator& generator) {
    for (const auto& known : states) {
      if (known.first == generator) return;
    }
    states.emplace_back(generator, stateOf(generator));
  };
  remember(at::detail::getDefaultCPUGenerator());
  for (const auto& input : inputs) {
    if (input.defined() && input.is_cuda()) remember(at::globalContext().defaultGenerator(input.device()));
  }
  return states;
}

void applyRandom(const RandomStates& states) {
  for (const auto& [generator, state] : states) {
    at::Generator target = generator;
    std::lock_guard<std::mutex> lock(target.mutex());
    target.set_state(state);
  }
}

uint32_t versionOf(const at::Tensor& tensor) {
  return !tensor.defined() || tensor.is_inference() ? 0 : static_cast<uint32_t>(tensor._version());
}

// One checkpointed call: enough to run it again.
struct Segment : std::enable_shared_from_this<Segment> {
  Segment(Environment& environment, napi_value function, std::vector<at::Tensor> inputs, bool preserveRandom)
      : environment(environment),
        function(environment.env, function),
        inputs(std::move(inputs)),
        preserveRandom(preserveRandom),
        random(preserveRandom ? currentRandom(this->inputs) : RandomStates()),
        autocast(currentAutocast()) {
    for (const auto& input : this->inputs) versions.push_back(versionOf(input));
  }

  Environment& environment;
  Callback function;
  std::vector<at::Tensor> inputs;
  bool preserveRandom;
  RandomStates random;
  std::vector<AutocastState> autocast;
  std::vector<uint32_t> versions;  // of the inputs: one that was changed in place would give other gradients silently
  bool complete = false;           // false during the first run, which may itself take gradients
  std::vector<std::pair<std::vector<int64_t>, at::ScalarType>> saved;  // what the first forward saved, in order
  std::vector<at::Tensor> recomputed;

  at::Tensor fetch(size_t index);
  void recompute();
};

enum class Phase { Forward, Recompute };

struct Frame {
  std::shared_ptr<Segment> segment;
  Phase phase;
};

// The checkpointed calls that are running on this thread. One thread has at most one JavaScript environment.
thread_local std::vector<Frame> runningFrames;

struct FrameGuard {
  FrameGuard(std::shared_ptr<Segment> segment, Phase phase) { runningFrames.push_back({std::move(segment), phase}); }
  ~FrameGuard() { runningFrames.pop_back(); }
};

struct ForwardHooks : torch::autograd::SavedVariableHooks {
  explicit ForwardHooks(std::shared_ptr<Segment> segment) : segment(std::move(segment)) {}
  void call_pack_hook(const at::Tensor& tensor) override {
    index = segment->saved.size();
    segment->saved.emplace_back(tensor.sizes().vec(), tensor.scalar_type());
  }
  at::Tensor call_unpack_hook() override { return segment->fetch(index); }
  std::shared_ptr<Segment> segment;
  size_t index = 0;
};

struct RecomputeHooks : torch::autograd::SavedVariableHooks {
  explicit RecomputeHooks(std::shared_ptr<Segment> segment) : segment(std::move(segment)) {}
  void call_pack_hook(const at::Tensor& tensor) override {
    index = segment->recomputed.size();
    segment->recomputed.push_back(tensor.detach());
  }
  at::Tensor call_unpack_hook() override { return segment->recomputed.at(index); }
  std::shared_ptr<Segment> segment;
  size_t index = 0;
};

// libtorch asks the engine for default hooks; the stock engine has none, Python's has Python's, and this one has ours.
struct HookEngine : torch::autograd::Engine {
  std::unique_ptr<torch::autograd::SavedVariableHooks> get_default_saved_variable_hooks() override {
    if (runningFrames.empty()) return nullptr;
    const Frame& frame = runningFrames.back();
    if (frame.phase == Phase::Forward) return std::make_unique<ForwardHooks>(frame.segment);
    return std::make_unique<RecomputeHooks>(frame.segment);
  }
};

torch::autograd::Engine& hookEngine() {
  static auto* engine = new HookEngine();  // never destroyed, as libtorch's own
  return *engine;
}

std::vector<at::Tensor> run(const Segment& segment) {
  napi_env env = segment.environment.env;
  Napi::Array array = Napi::Array::New(env, segment.inputs.size());
  for (size_t k = 0; k < segment.inputs.size(); ++k) array[k] = fromTensor(segment.environment, segment.inputs[k]);
  return tensorsOf(segment.environment, segment.function.call({array}), {"checkpoint", "the returned value"});
}

void Segment::recompute() {
  for (size_t k = 0; k < inputs.size(); ++k) {
    if (versionOf(inputs[k]) != versions[k]) {
      typeError("checkpoint: expected input ", k,
                " to be as it was when the function ran first, but it was modified by an in-place operation since");
    }
  }
  const auto randomNow = preserveRandom ? currentRandom(inputs) : RandomStates();
  const auto autocastNow = currentAutocast();
  const bool gradNow = c10::GradMode::is_enabled();
  recomputed.clear();
  {
    struct Restore {
      const RandomStates& random;
      const std::vector<AutocastState>& autocast;
      bool grad;
      ~Restore() {
        c10::GradMode::set_enabled(grad);
        applyAutocast(autocast);
        // As at the end of autocast(): casts of weights must not outlive the weights' values.
        if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
        applyRandom(random);
      }
    } restore{randomNow, autocastNow, gradNow};
    at::autocast::increment_nesting();
    applyRandom(random);
    applyAutocast(autocast);
    c10::GradMode::set_enabled(true);
    Napi::HandleScope handles(environment.env);
    ScopeGuard scope(environment);
    FrameGuard frame(shared_from_this(), Phase::Recompute);
    run(*this);
  }
  if (complete ? recomputed.size() != saved.size() : recomputed.size() < saved.size()) {
    const size_t found = recomputed.size();
    recomputed.clear();
    typeError("checkpoint: expected the function to save ", saved.size(),
              " tensors when it ran again, as it did at first, but it saved ", found,
              "; make it depend on its inputs and the random state alone");
  }
}

at::Tensor Segment::fetch(size_t index) {
  if (recomputed.size() <= index || !recomputed[index].defined()) recompute();
  const auto& [sizes, dtype] = saved[index];
  if (recomputed[index].sizes() != sizes || recomputed[index].scalar_type() != dtype) {
    typeError("checkpoint: expected tensor ", index, " of the second run to be of shape ", at::IntArrayRef(sizes),
              " and ", dtypeName(dtype), " as in the first, but it is of shape ", recomputed[index].sizes(), " and ",
              dtypeName(recomputed[index].scalar_type()));
  }
  // Each saved tensor is asked for once in a backward: letting go at once keeps the peak low. A second backward over a
  // retained graph computes again.
  at::Tensor result = std::move(recomputed[index]);
  recomputed[index] = at::Tensor();
  return result;
}

// checkpoint(function, inputs, preserveRandom): handles of the outputs
Napi::Value checkpoint(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto segment =
      std::make_shared<Segment>(environment, info[0], tensorsOf(environment, info[1], {"checkpoint", "inputs"}),
                                booleanOf(env, info[2], {"checkpoint", "preserveRandomState"}));
  std::vector<at::Tensor> outputs;
  {
    ScopeGuard scope(environment);
    FrameGuard frame(segment, Phase::Forward);
    outputs = run(*segment);
  }
  segment->complete = true;
  segment->recomputed.clear();
  Napi::Array result = Napi::Array::New(env, outputs.size());
  for (size_t k = 0; k < outputs.size(); ++k) result[k] = fromTensor(environment, outputs[k]);
  return result;
}

}  // namespace

void defineCheckpoint(Napi::Object exports, Environment& environment) {
  torch::autograd::set_default_engine_stub(hookEngine);
  define<checkpoint>(exports, environment, "checkpoint");
}

}  // namespace cleft
