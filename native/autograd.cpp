#include "autograd.hpp"

#include <c10/core/AutogradState.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include "convert.hpp"
#include "scope_guard.hpp"

namespace cleft {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

std::optional<bool> optionalBoolean(napi_env env, napi_value value, Place place) {
  if (isNullish(env, value)) return std::nullopt;
  return booleanOf(env, value, place);
}

void checkHasGraph(const variable_list& outputs, const char* operation) {
  for (const auto& output : outputs) {
    if (output.defined() && !output.requires_grad()) {
      typeError(operation,
                ": expected a tensor that depends on one with requiresGrad, but this one has no graph; was it made "
                "inside noGrad(), by detach(), or from data alone?");
    }
  }
}

// backward(outputs, gradients or null, retainGraph or null, createGraph, inputs)
Napi::Value backward(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto outputs = tensorsOf(environment, info[0], {"backward", "outputs"});
  checkHasGraph(outputs, "backward");
  const auto gradients =
      isNullish(env, info[1]) ? variable_list() : tensorsOf(environment, info[1], {"backward", "gradient"});
  torch::autograd::backward(outputs, gradients, optionalBoolean(env, info[2], {"backward", "retainGraph"}),
                            booleanOf(env, info[3], {"backward", "createGraph"}),
                            tensorsOf(environment, info[4], {"backward", "inputs"}));
  return env.Undefined();
}

// grad(outputs, inputs, gradients or null, retainGraph or null, createGraph, allowUnused): handles and nulls
Napi::Value grad(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto outputs = tensorsOf(environment, info[0], {"grad", "outputs"});
  checkHasGraph(outputs, "grad");
  const auto inputs = tensorsOf(environment, info[1], {"grad", "inputs"});
  for (const auto& input : inputs) {
    if (!input.requires_grad()) {
      typeError(
          "grad: expected inputs that require a gradient, but one does not; call requiresGrad_() on it before "
          "it is used");
    }
  }
  const auto gradients =
      isNullish(env, info[2]) ? variable_list() : tensorsOf(environment, info[2], {"grad", "gradOutputs"});
  const auto found = torch::autograd::grad(
      outputs, inputs, gradients, optionalBoolean(env, info[3], {"grad", "retainGraph"}),
      booleanOf(env, info[4], {"grad", "createGraph"}), booleanOf(env, info[5], {"grad", "allowUnused"}));
  Napi::Array result = Napi::Array::New(env, found.size());
  for (size_t k = 0; k < found.size(); ++k) result[k] = fromTensor(environment, found[k]);
  return result;
}

Napi::Value gradient(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"grad", "self"});
  return {info.Env(), fromTensor(environment, tensor.grad())};
}

Napi::Value setGradient(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"grad", "self"});
  at::Tensor value;
  if (!isNullish(info.Env(), info[1])) {
    value = tensorOf(environment, info[1], {"grad", "value"});
    if (value.sizes() != tensor.sizes() || value.device() != tensor.device()) {
      rangeError("grad: expected a gradient of shape ", tensor.sizes(), " on ", tensor.device().str(),
                 ", but received one of shape ", value.sizes(), " on ", value.device().str());
    }
  }
  tensor.mutable_grad() = value;
  return info.Env().Undefined();
}

Napi::Value setRequiresGrad(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"requiresGrad_", "self"});
  const bool wanted = booleanOf(info.Env(), info[1], {"requiresGrad_", "requiresGrad"});
  if (wanted && !torch::autograd::isDifferentiableType(tensor.scalar_type())) {
    typeError("requiresGrad_: expected a floating-point or complex tensor, but received one of ",
              dtypeName(tensor.scalar_type()));
  }
  if (!wanted && !tensor.is_leaf()) {
    typeError("requiresGrad_: expected a leaf tensor to switch gradients off, but this one was computed; use detach()");
  }
  tensor.set_requires_grad(wanted);
  return info.Env().Undefined();
}

// autogradInfo(tensor): {requiresGrad, isLeaf, retainsGrad, gradFunction}
Napi::Value autogradInfo(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"autograd", "self"});
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("requiresGrad", tensor.requires_grad());
  result.Set("isLeaf", tensor.is_leaf());
  result.Set("retainsGrad", tensor.retains_grad());
  const auto& node = tensor.grad_fn();
  if (node) {
    result.Set("gradFunction", node->name());
  } else {
    result.Set("gradFunction", info.Env().Null());
  }
  return result;
}

Napi::Value retainGradient(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"retainGrad", "self"});
  if (!tensor.requires_grad()) {
    typeError("retainGrad: expected a tensor that requires a gradient, but this one does not");
  }
  tensor.retain_grad();
  return info.Env().Undefined();
}

// setData(tensor, source): the tensor's content becomes the source's, whatever its dtype and device
Napi::Value setData(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"data", "self"});
  tensor.set_data(tensorOf(environment, info[1], {"data", "value"}));
  return info.Env().Undefined();
}

// Calls a TypeScript function with handles; what it makes is freed when it returns.
variable_list callWithTensors(Environment& environment, const Callback& callback,
                              const std::vector<variable_list>& groups, const char* operation) {
  Napi::HandleScope handles(environment.env);
  ScopeGuard scope(environment);
  std::vector<napi_value> arguments;
  for (const auto& group : groups) {
    Napi::Array array = Napi::Array::New(environment.env, group.size());
    for (size_t k = 0; k < group.size(); ++k) array[k] = fromTensor(environment, group[k]);
    arguments.push_back(array);
  }
  napi_value result = callback.call(arguments);
  return isNullish(environment.env, result) ? variable_list()
                                            : tensorsOf(environment, result, {operation, "the returned value"});
}

// registerHook(tensor, callback): the hook's position
Napi::Value registerHook(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"registerHook", "self"});
  if (!tensor.requires_grad()) {
    typeError("registerHook: expected a tensor that requires a gradient, but this one does not");
  }
  auto callback = std::make_shared<Callback>(info.Env(), info[1]);
  Environment* owner = &environment;
  const unsigned position = tensor.register_hook([callback, owner](at::Tensor gradient) -> at::Tensor {
    const auto changed = callWithTensors(*owner, *callback, {{gradient}}, "registerHook");
    return changed.empty() ? at::Tensor() : changed[0];
  });
  return Napi::Number::New(info.Env(), position);
}

Napi::Value removeHook(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"removeHook", "self"});
  tensor.remove_hook(static_cast<unsigned>(integerOf(info.Env(), info[1], {"removeHook", "position"})));
  return info.Env().Undefined();
}

struct HeldCallback : torch::CustomClassHolder {
  HeldCallback(Environment& environment, napi_value function)
      : environment(environment), callback(environment.env, function) {}
  Environment& environment;
  Callback callback;
};

// A function whose forward and backward are TypeScript. forward(inputs) returns
// {outputs, saved, dirty, nonDifferentiable, backward, materialize}; backward(gradients, saved) returns gradients.
struct TypeScriptFunction : torch::autograd::Function<TypeScriptFunction> {
  static variable_list forward(AutogradContext* context, at::TensorList inputs, Environment* environment,
                               const Callback* forwardCallback) {
    Napi::HandleScope handles(environment->env);
    ScopeGuard scope(*environment);
    Napi::Array array = Napi::Array::New(environment->env, inputs.size());
    for (size_t k = 0; k < inputs.size(); ++k) array[k] = fromTensor(*environment, inputs[k]);
    Napi::Object made(environment->env, forwardCallback->call({array}));
    const auto list = [&](const char* name) {
      return tensorsOf(*environment, made.Get(name), {"Function.apply", name});
    };
    context->save_for_backward(list("saved"));
    context->mark_dirty(list("dirty"));
    context->mark_non_differentiable(list("nonDifferentiable"));
    context->set_materialize_grads(
        booleanOf(environment->env, made.Get("materialize"), {"Function.apply", "materialize"}));
    context->saved_data["backward"] =
        c10::IValue::make_capsule(c10::make_intrusive<HeldCallback>(*environment, made.Get("backward")));
    return list("outputs");
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto capsule = context->saved_data["backward"].toCapsule();
    auto& held = static_cast<HeldCallback&>(*capsule);
    auto found = callWithTensors(held.environment, held.callback, {gradients, context->get_saved_variables()},
                                 "Function.backward");
    // forward() took two arguments that are no tensors; their places hold no gradient
    found.resize(found.size() + 2);
    return found;
  }
};

// applyFunction(inputs, forward): handles of the outputs
Napi::Value applyFunction(Environment& environment, const Napi::CallbackInfo& info) {
  const auto inputs = tensorsOf(environment, info[0], {"Function.apply", "inputs"});
  const Callback forward(info.Env(), info[1]);
  const auto outputs = TypeScriptFunction::apply(at::TensorList(inputs), &environment, &forward);
  Napi::Array result = Napi::Array::New(info.Env(), outputs.size());
  for (size_t k = 0; k < outputs.size(); ++k) result[k] = fromTensor(environment, outputs[k]);
  return result;
}

}  // namespace

void defineAutograd(Napi::Object exports, Environment& environment) {
  define<backward>(exports, environment, "backward");
  define<grad>(exports, environment, "grad");
  define<gradient>(exports, environment, "gradient", "grad");
  define<setGradient>(exports, environment, "setGradient", "grad");
  define<setRequiresGrad>(exports, environment, "setRequiresGrad", "requiresGrad_");
  define<autogradInfo>(exports, environment, "autogradInfo");
  define<retainGradient>(exports, environment, "retainGradient", "retainGrad");
  define<setData>(exports, environment, "setData", "data");
  define<registerHook>(exports, environment, "registerHook");
  define<removeHook>(exports, environment, "removeHook");
  define<applyFunction>(exports, environment, "applyFunction", "Function.apply");
}

}  // namespace cleft
