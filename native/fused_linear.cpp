// Linear layers joined with what stands before and behind them in a transformer's block. What these operators gain is
// memory: for backward they keep the input of the norm or of the activation, and compute its output again there, in one
// pass, and a LayerScale's gradient comes out of the product that the weight's gradient needs anyway. The residual is
// added by the product itself. Operators of the namespace `cleft`, as those in fused.cpp.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "products.hpp"

namespace cleft {

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

OptionalTensor optionalOf(const Tensor& tensor) { return tensor.defined() ? OptionalTensor(tensor) : std::nullopt; }

void checkLinear(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  TORCH_CHECK(weight.dim() == 2 && x.dim() >= 1 && x.size(-1) == weight.size(1), "expected x [..., ",
              weight.dim() == 2 ? weight.size(1) : 0, "] and weight [outputs, inputs], but received ", x.sizes(),
              " and ", weight.sizes());
  TORCH_CHECK(!isGiven(bias) || (bias->dim() == 1 && bias->size(0) == weight.size(0)), "expected bias [",
              weight.size(0), "], but received ", isGiven(bias) ? bias->sizes() : at::IntArrayRef());
}

// The gradients of a function that is written in differentiable operators: where gradients of gradients are wanted.
template <typename Function>
variable_list differentiated(const Function& function, const variable_list& inputs, const Tensor& gradient) {
  variable_list wanted;
  for (const Tensor& input : inputs)
    if (input.defined() && input.requires_grad()) wanted.push_back(input);
  variable_list found =
      torch::autograd::grad({function()}, wanted, {gradient}, /*retain_graph=*/true, /*create_graph=*/true, true);
  variable_list all;
  size_t next = 0;
  for (const Tensor& input : inputs) all.push_back(input.defined() && input.requires_grad() ? found[next++] : Tensor());
  return all;
}

// ---- linear(layer_norm(x)) ----

Tensor normLinear(const Tensor& x, const Tensor& normWeight, const Tensor& normBias, double eps, const Tensor& weight,
                  const OptionalTensor& bias) {
  checkLinear(x, weight, bias);
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  const Prologue norm = {Prologue::Kind::norm, normWeight, normBias, eps};
  if (multipliesRows(x, weight, bias, norm)) return multiplyRows(rowsOf(x), norm, weight, bias, Tensor()).view(sizes);
  const Tensor normed = at::layer_norm(x, {x.size(-1)}, normWeight, normBias, eps);
  return linearProduct(rowsOf(normed.to(weight.scalar_type())), weight, bias).view(sizes);
}

Tensor callNormLinear(const Tensor& x, const Tensor& normWeight, const Tensor& normBias, double eps,
                      const Tensor& weight, const OptionalTensor& bias) {
  static auto operation =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("cleft::norm_linear", "")
          .typed<Tensor(const Tensor&, const Tensor&, const Tensor&, double, const Tensor&, const OptionalTensor&)>();
  return operation.call(x, normWeight, normBias, eps, weight, bias);
}

struct NormLinear : torch::autograd::Function<NormLinear> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& normWeight, const Tensor& normBias,
                        double eps, const Tensor& weight, const OptionalTensor& bias) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, normWeight, normBias, weight, bias.value_or(Tensor())});
    context->saved_data["eps"] = eps;
    return callNormLinear(x, normWeight, normBias, eps, weight, bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &normWeight = saved[1], &normBias = saved[2], &weight = saved[3], &bias = saved[4];
    const double eps = context->saved_data["eps"].toDouble();
    if (c10::GradMode::is_enabled()) {
      const variable_list all = differentiated(
          [&] {
            const Tensor normed = at::layer_norm(x, {x.size(-1)}, normWeight, normBias, eps);
            return at::linear(normed.to(weight.scalar_type()), weight, optionalOf(bias));
          },
          saved, gradients[0]);
      return {all[0], all[1], all[2], Tensor(), all[3], all[4]};
    }
    const Tensor gradient = rowsOf(gradients[0]);
    variable_list all(6);
    // counted over the tensors that were given
    const bool ofWeight = context->needs_input_grad(3), ofBias = bias.defined() && context->needs_input_grad(4);
    const Prologue norm = {Prologue::Kind::norm, normWeight, normBias, eps};
    Tensor mean, rstd;
    if (ofWeight && sumsRows(gradient, x, norm)) {
      WeightGradient found = weightGradient(gradient, rowsOf(x), norm, ofBias, Tensor());
      std::vector<int64_t> sizes = x.sizes().vec();
      sizes.back() = 1;
      mean = found.mean.view(sizes);
      rstd = found.rstd.view(sizes);
      all[4] = found.weight;
      all[5] = found.sum;
    } else {
      Tensor normed;
      std::tie(normed, mean, rstd) = at::native_layer_norm(x, {x.size(-1)}, normWeight, normBias, eps);
      if (ofWeight) all[4] = gradient.t().mm(rowsOf(normed).to(weight.scalar_type()));
      if (ofBias) all[5] = gradient.sum(0);
    }
    const std::array<bool, 3> wanted = {context->needs_input_grad(0), context->needs_input_grad(1),
                                        context->needs_input_grad(2)};
    if (wanted[0] || wanted[1] || wanted[2]) {
      const Tensor ofNormed = linearProduct(gradient, weight.t(), std::nullopt).to(x.scalar_type()).view(x.sizes());
      std::tie(all[0], all[1], all[2]) =
          at::native_layer_norm_backward(ofNormed, x, {x.size(-1)}, mean, rstd, normWeight, normBias, wanted);
    }
    return all;
  }
};

Tensor normLinearAutograd(const Tensor& x, const Tensor& normWeight, const Tensor& normBias, double eps,
                          const Tensor& weight, const OptionalTensor& bias) {
  return NormLinear::apply(x, normWeight, normBias, eps, weight, bias);
}

// ---- residual + gamma * linear(activation(x)) ----

enum class Activation { none, gelu, geluTanh };

Activation activationOf(std::string_view name) {
  if (name == "none") return Activation::none;
  if (name == "gelu") return Activation::gelu;
  TORCH_CHECK(name == "gelu_tanh", "expected activation 'none', 'gelu' or 'gelu_tanh', but received '", name, "'");
  return Activation::geluTanh;
}

std::string_view approximationOf(Activation activation) { return activation == Activation::gelu ? "none" : "tanh"; }

Tensor activated(const Tensor& x, Activation activation) {
  return activation == Activation::none ? x : at::gelu(x, approximationOf(activation));
}

// What is left to do with the rows before the product, and the input.
std::pair<Prologue, Tensor> prologueOf(const Tensor& x, Activation activation) {
  if (activation == Activation::gelu) return {{Prologue::Kind::gelu, {}, {}, 0}, x};
  return {{}, activated(x, activation)};
}

// gamma scales the rows of a weight or a bias
Tensor scaled(const Tensor& tensor, const Tensor& gamma) {
  if (!gamma.defined()) return tensor;
  return (tensor.dim() == 2 ? tensor * gamma.unsqueeze(1) : tensor * gamma).to(tensor.scalar_type());
}

void checkResidual(const Tensor& residual, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                   const OptionalTensor& gamma) {
  checkLinear(x, weight, bias);
  TORCH_CHECK(residual.dim() == x.dim() && residual.size(-1) == weight.size(0) &&
                  residual.sizes().slice(0, residual.dim() - 1) == x.sizes().slice(0, x.dim() - 1),
              "expected a residual like x ", x.sizes(), " but for its last dimension of ", weight.size(0),
              ", but received ", residual.sizes());
  TORCH_CHECK(!isGiven(gamma) || (gamma->dim() == 1 && gamma->size(0) == weight.size(0)), "expected gamma [",
              weight.size(0), "], but received ", isGiven(gamma) ? gamma->sizes() : at::IntArrayRef());
}

Tensor linearResidual(const Tensor& residual, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                      const OptionalTensor& gamma, std::string_view activation) {
  checkResidual(residual, x, weight, bias, gamma);
  const Activation kind = activationOf(activation);
  const auto type = residual.scalar_type();
  if (type != weight.scalar_type() || type != x.scalar_type()) {
    // in lower precision under autocast: sums stay in the residual's
    const Tensor branch = at::linear(activated(x, kind), weight, bias);
    return isGiven(gamma) ? at::addcmul(residual, branch, *gamma) : residual + branch;
  }
  const Tensor gammaOrNone = gamma.value_or(Tensor()), factors = scaled(weight, gammaOrNone);
  const OptionalTensor shift = isGiven(bias) ? OptionalTensor(scaled(*bias, gammaOrNone)) : std::nullopt;
  const auto [prologue, input] = prologueOf(x, kind);
  if (residual.is_cpu() && multipliesRows(input, factors, shift, prologue))
    return multiplyRows(rowsOf(input), prologue, factors, shift, rowsOf(residual)).view(residual.sizes());
  Tensor output = isGiven(shift) ? rowsOf(residual) + *shift : rowsOf(residual).clone();
  return output.addmm_(rowsOf(activated(x, kind)), factors.t()).view(residual.sizes());
}

// The same, for gradients of gradients.
Tensor linearResidualPlain(const Tensor& residual, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                           const OptionalTensor& gamma, Activation activation) {
  const Tensor branch = at::linear(activated(x, activation), weight, bias);
  return isGiven(gamma) ? at::addcmul(residual, branch, *gamma) : residual + branch;
}

using LinearResidualSchema = Tensor(const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&,
                                    const OptionalTensor&, std::string_view);

Tensor callLinearResidual(const Tensor& residual, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                          const OptionalTensor& gamma, std::string_view activation) {
  static auto operation =
      c10::Dispatcher::singleton().findSchemaOrThrow("cleft::linear_residual", "").typed<LinearResidualSchema>();
  return operation.call(residual, x, weight, bias, gamma, activation);
}

struct LinearResidual : torch::autograd::Function<LinearResidual> {
  static Tensor forward(AutogradContext* context, const Tensor& residual, const Tensor& x, const Tensor& weight,
                        const OptionalTensor& bias, const OptionalTensor& gamma, const std::string& activation) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, weight, bias.value_or(Tensor()), gamma.value_or(Tensor())});
    context->saved_data["activation"] = static_cast<int64_t>(activationOf(activation));
    context->saved_data["type"] = static_cast<int64_t>(residual.scalar_type());
    return callLinearResidual(residual, x, weight, bias, gamma, activation);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &gamma = saved[3];
    const auto activation = static_cast<Activation>(context->saved_data["activation"].toInt());
    const auto type = static_cast<at::ScalarType>(context->saved_data["type"].toInt());
    const Tensor& gradient = gradients[0];
    if (c10::GradMode::is_enabled()) {
      // the residual's gradient is the output's
      const Tensor zero = at::zeros_like(gradient);
      const variable_list all = differentiated(
          [&] { return linearResidualPlain(zero, x, weight, optionalOf(bias), optionalOf(gamma), activation); }, saved,
          gradient);
      return {gradient.to(type), all[0], all[1], all[2], all[3], Tensor()};
    }
    const Tensor rows = rowsOf(gradient);
    const Tensor low = rows.to(weight.scalar_type());
    variable_list all(6);
    if (context->needs_input_grad(0)) all[0] = gradient.to(type);
    // counted over the tensors that were given
    const bool ofWeight = context->needs_input_grad(2), ofBias = bias.defined() && context->needs_input_grad(3),
               ofGamma = gamma.defined() && context->needs_input_grad(bias.defined() ? 4 : 3);
    const bool ofSum = ofBias || (ofGamma && bias.defined());
    Tensor product, sum, ofInput;
    bool isDerived = activation == Activation::none;
    if (context->needs_input_grad(1)) ofInput = linearProduct(low, scaled(weight, gamma).t(), std::nullopt);
    if (ofWeight || ofGamma) {
      // [outputs, inputs]: gamma's gradient is in it too, for gamma scales the rows of the weight
      const auto [prologue, input] = prologueOf(x, activation);
      if (sumsRows(low, input, prologue)) {
        const WeightGradient found = weightGradient(low, rowsOf(input), prologue, ofSum, ofInput);
        product = found.weight;
        sum = found.sum;
        isDerived = isDerived || activation == Activation::gelu;
      } else {
        product = low.t().mm(rowsOf(activated(x, activation)));
      }
    }
    if (ofSum && !sum.defined()) sum = rows.sum(0);
    if (ofInput.defined()) {
      all[1] = ofInput.view(x.sizes());
      if (!isDerived) at::gelu_backward_out(all[1], all[1], x, approximationOf(activation));
    }
    if (ofWeight) all[2] = scaled(product, gamma);
    if (ofBias) all[3] = (gamma.defined() ? sum * gamma : sum).to(bias.scalar_type());
    if (ofGamma) {
      const Tensor own = (weight * product).sum(1, false, gamma.scalar_type());
      all[4] = bias.defined() ? (own + sum * bias).to(gamma.scalar_type()) : own;
    }
    return all;
  }
};

Tensor linearResidualAutograd(const Tensor& residual, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                              const OptionalTensor& gamma, std::string_view activation) {
  return LinearResidual::apply(residual, x, weight, bias, gamma, std::string(activation));
}

// ---- autocast: products in the lower precision, norms, LayerScale and sums as they are ----

template <c10::DeviceType device>
OptionalTensor lowered(const OptionalTensor& tensor) {
  return isGiven(tensor)
             ? OptionalTensor(at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), *tensor, device))
             : std::nullopt;
}

template <c10::DeviceType device>
Tensor normLinearAutocast(const Tensor& x, const Tensor& normWeight, const Tensor& normBias, double eps,
                          const Tensor& weight, const OptionalTensor& bias) {
  c10::impl::ExcludeDispatchKeyGuard without(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  return callNormLinear(x, normWeight, normBias, eps, *lowered<device>(weight), lowered<device>(bias));
}

template <c10::DeviceType device>
Tensor linearResidualAutocast(const Tensor& residual, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                              const OptionalTensor& gamma, std::string_view activation) {
  c10::impl::ExcludeDispatchKeyGuard without(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  return callLinearResidual(residual, *lowered<device>(x), *lowered<device>(weight), lowered<device>(bias), gamma,
                            activation);
}

TORCH_LIBRARY_FRAGMENT(cleft, library) {
  library.def(
      "norm_linear(Tensor x, Tensor norm_weight, Tensor norm_bias, float eps, Tensor weight, Tensor? bias) -> Tensor");
  library.def(
      "linear_residual(Tensor residual, Tensor x, Tensor weight, Tensor? bias, Tensor? gamma, str activation) -> "
      "Tensor");
}
TORCH_LIBRARY_IMPL(cleft, CompositeExplicitAutograd, library) {
  library.impl("norm_linear", normLinear);
  library.impl("linear_residual", linearResidual);
}
TORCH_LIBRARY_IMPL(cleft, Autograd, library) {
  library.impl("norm_linear", normLinearAutograd);
  library.impl("linear_residual", linearResidualAutograd);
}
TORCH_LIBRARY_IMPL(cleft, AutocastCPU, library) {
  library.impl("norm_linear", normLinearAutocast<c10::kCPU>);
  library.impl("linear_residual", linearResidualAutocast<c10::kCPU>);
}
TORCH_LIBRARY_IMPL(cleft, AutocastCUDA, library) {
  library.impl("norm_linear", normLinearAutocast<c10::kCUDA>);
  library.impl("linear_residual", linearResidualAutocast<c10::kCUDA>);
}

}  // namespace

}  // namespace cleft
