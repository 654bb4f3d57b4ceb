// Gradients averaged over the processes while backward runs: libtorch's own DDP Reducer.
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <sstream>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <unordered_set>

#include "distributed.hpp"

namespace cleft {

namespace {

using Tensors = std::vector<at::Tensor>;
using Buckets = std::vector<std::vector<size_t>>;

const napi_type_tag kReducerTag = {0x1e6b93d05c2748fa, 0xd47f08a6b3914ce2};

struct Held {
  std::unique_ptr<c10d::Reducer> reducer;
  Tensors parameters;
  std::vector<std::string> names;
};

// The constructor has got a further argument from one libtorch to the next. A template, so that only one call is
// compiled.
template <typename Reducer, typename... Arguments>
std::unique_ptr<Reducer> construct(Arguments... arguments) {
  if constexpr (std::is_constructible_v<Reducer, Arguments..., std::vector<int64_t>>) {
    return std::make_unique<Reducer>(std::move(arguments)..., std::vector<int64_t>());
  } else {
    return std::make_unique<Reducer>(std::move(arguments)...);
  }
}

std::unique_ptr<c10d::Reducer> makeReducer(const Held& held, Buckets buckets, const Group& group, int64_t bucketBytes,
                                           int64_t firstBucketBytes, bool gradientAsBucketView) {
  std::unordered_map<size_t, std::string> names;
  for (size_t k = 0; k < held.names.size(); ++k) names[k] = held.names[k];
  constexpr bool findUnusedParameters = false, skipAllReduceUnused = false, usePythonReducer = false;
  return construct<c10d::Reducer>(held.parameters, std::move(buckets), group.processes,
                                  std::vector<bool>(held.parameters.size(), false), bucketBytes, findUnusedParameters,
                                  gradientAsBucketView, std::move(names), firstBucketBytes, skipAllReduceUnused,
                                  usePythonReducer);
}

Held& heldOf(napi_env env, napi_value value) {
  auto& held = *unwrapped<std::shared_ptr<Held>>(env, value, kReducerTag, {"DistributedDataParallel", "the reducer"},
                                                 "a reducer");
  if (!held.reducer) typeError("DistributedDataParallel: expected one that is in use, but it was disposed of");
  return held;
}

// makeReducer(group, parameters, names, bucketBytes, firstBucketBytes, gradientAsBucketView)
Napi::Value newReducer(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const char* operation = "DistributedDataParallel";
  const Group& group = groupOf(env, info[0], {operation, "the group"});
  auto held = std::make_shared<Held>();
  held->parameters = tensorsOf(environment, info[1], {operation, "the parameters"});
  const auto names = info[2].As<Napi::Array>();
  for (uint32_t k = 0; k < names.Length(); ++k) {
    held->names.push_back(stringOf(env, names.Get(k), {operation, "a name"}));
  }
  const int64_t bytes = integerOf(env, info[3], {operation, "bucketBytes"});
  const int64_t firstBytes = integerOf(env, info[4], {operation, "firstBucketBytes"});
  const bool view = booleanOf(env, info[5], {operation, "gradientAsBucketView"});
  try {
    c10d::verify_params_across_processes(group.processes, held->parameters, std::nullopt);
  } catch (const c10::Error& error) {
    // Rank 0 is not told by libtorch, and would go on.
    const std::string message = error.what_without_backtrace();
    group.backend->abortFor("its parameters are not rank 0's: " + message.substr(0, message.find('\n')));
    throw;
  }
  auto assigned = std::get<0>(c10d::compute_bucket_assignment_by_size(
      held->parameters, {static_cast<size_t>(firstBytes), static_cast<size_t>(bytes)}));
  // Backward comes to the last parameters first.
  std::reverse(assigned.begin(), assigned.end());
  held->reducer = makeReducer(*held, std::move(assigned), group, bytes, firstBytes, view);
  return {env, wrapped<std::shared_ptr<Held>>(env, kReducerTag, std::move(held))};
}

// What libtorch says of parameters by their position, by their names.
[[noreturn]] void throwUnreduced(const Held& held, const std::string& message) {
  const std::string marker = "did not receive grad for rank ";
  const size_t at = message.find(marker);
  if (at == std::string::npos) throw std::runtime_error(message.substr(0, message.find('\n')));
  std::istringstream rest(message.substr(at + marker.size()));
  std::string rank, names;
  rest >> rank;
  size_t index;
  for (; rest >> index;) {
    if (index < held.names.size()) names += (names.empty() ? "" : ", ") + held.names[index];
  }
  typeError("DistributedDataParallel: expected backward() to reach every parameter, but ", names,
            " got no gradient, and the gradients of this step were not averaged over the ranks; leave what is not used "
            "out of the model, or call requiresGrad_(false) on it before wrapping");
}

template <typename Run>
void explained(const Held& held, Run run) {
  try {
    run();
  } catch (const c10::Error& error) {
    throwUnreduced(held, error.what_without_backtrace());
  }
}

// Parameters that backward() from these outputs will not reach.
std::vector<size_t> findUnused(const Held& held, const Tensors& outputs) {
  std::unordered_set<torch::autograd::Node*> seen;
  std::vector<torch::autograd::Node*> open;
  const auto visit = [&](torch::autograd::Node* node) {
    if (node != nullptr && seen.insert(node).second) open.push_back(node);
  };
  for (const auto& output : outputs) {
    if (output.requires_grad()) visit(torch::autograd::impl::gradient_edge(output).function.get());
  }
  while (!open.empty()) {
    auto* node = open.back();
    open.pop_back();
    for (const auto& edge : node->next_edges()) visit(edge.function.get());
  }
  std::vector<size_t> unused;
  for (size_t k = 0; k < held.parameters.size(); ++k) {
    const auto accumulator = torch::autograd::impl::try_get_grad_accumulator(held.parameters[k]);
    if (!accumulator || seen.count(accumulator.get()) == 0) unused.push_back(k);
  }
  return unused;
}

// reducerForward(reducer): before forward(); the order of the buckets may be settled here, over all ranks
Napi::Value reducerForward(Environment&, const Napi::CallbackInfo& info) {
  Held& held = heldOf(info.Env(), info[0]);
  explained(held, [&] {
    held.reducer->prepare_for_forward();
    held.reducer->rebuild_buckets();
  });
  return info.Env().Undefined();
}

// reducerBackward(reducer, outputs): after forward(), where the next backward() is to reduce
Napi::Value reducerBackward(Environment& environment, const Napi::CallbackInfo& info) {
  Held& held = heldOf(info.Env(), info[0]);
  const auto unused =
      findUnused(held, tensorsOf(environment, info[1], {"DistributedDataParallel", "the outputs of forward()"}));
  if (!unused.empty()) {
    std::string names;
    for (size_t k : unused) names += (names.empty() ? "" : ", ") + held.names.at(k);
    typeError("DistributedDataParallel: expected the output to depend on every parameter, but it does not on ", names,
              "; leave what is not used out of the model, or call requiresGrad_(false) on it before wrapping");
  }
  explained(held, [&] { held.reducer->prepare_for_backward({}); });
  return info.Env().Undefined();
}

// reducerCheck(reducer): throws where the last backward() did not reach every parameter
Napi::Value reducerCheck(Environment&, const Napi::CallbackInfo& info) {
  Held& held = heldOf(info.Env(), info[0]);
  explained(held, [&] { held.reducer->check_finalized(); });
  return info.Env().Undefined();
}

Napi::Value disposeReducer(Environment&, const Napi::CallbackInfo& info) {
  unwrapped<std::shared_ptr<Held>>(info.Env(), info[0], kReducerTag, {"DistributedDataParallel", "the reducer"},
                                   "a reducer")
      ->reducer.reset();
  return info.Env().Undefined();
}

}  // namespace

void defineReducer(Napi::Object exports, Environment& environment) {
  define<newReducer>(exports, environment, "newReducer", "DistributedDataParallel");
  define<reducerForward>(exports, environment, "reducerForward", "DistributedDataParallel");
  define<reducerBackward>(exports, environment, "reducerBackward", "DistributedDataParallel");
  define<reducerCheck>(exports, environment, "reducerCheck", "DistributedDataParallel");
  define<disposeReducer>(exports, environment, "disposeReducer", "DistributedDataParallel");
}

}  // namespace cleft
