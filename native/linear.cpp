// Linear layers with products.hpp, where these are faster than libtorch's: else that is called. An operator of the
// namespace `cleft`, as those in fused.cpp.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "products.hpp"

namespace cleft {

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Below which a row's product is bound by reading the weight, whoever does it.
constexpr int64_t fewRows = 8;

bool fits(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  return weight.dim() == 2 && x.dim() >= 1 && x.size(-1) == weight.size(1) && multipliesRows(x, weight, bias, {}) &&
         x.numel() / x.size(-1) >= fewRows && (!isGiven(bias) || bias->dim() == 1);
}

Tensor product(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  return linearProduct(rowsOf(x), weight, bias).view(sizes);
}

Tensor linear(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  return fits(x, weight, bias) ? product(x, weight, bias) : at::linear(x, weight, bias);
}

struct Linear : torch::autograd::Function<Linear> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
    at::AutoDispatchBelowADInplaceOrView below;
    // a weight that does not train needs no input
    context->save_for_backward({weight.requires_grad() ? x : Tensor(), weight});
    context->saved_data["biased"] = isGiven(bias);
    return product(x, weight, bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &gradient = gradients[0];
    // a gradient of this gradient may be wanted: in operators that have one
    const bool isPlain = c10::GradMode::is_enabled();
    variable_list all(3);
    if (context->needs_input_grad(0))
      all[0] = isPlain ? gradient.matmul(weight) : product(gradient, weight.t(), std::nullopt);
    const bool ofWeight = context->needs_input_grad(1);
    const bool ofBias = context->saved_data["biased"].toBool() && context->needs_input_grad(2);
    if (!ofWeight && !ofBias) return all;
    const Tensor rows = rowsOf(gradient);
    if (ofWeight && !isPlain && sumsRows(rows, x, {})) {
      const WeightGradient found = weightGradient(rows, rowsOf(x), {}, ofBias, Tensor());
      all[1] = found.weight;
      all[2] = found.sum;
      return all;
    }
    if (ofWeight) all[1] = rows.t().mm(rowsOf(x));
    if (ofBias) all[2] = rows.sum(0);
    return all;
  }
};

Tensor linearAutograd(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  return fits(x, weight, bias) ? Tensor(Linear::apply(x, weight, bias)) : at::linear(x, weight, bias);
}

// autocast is at::linear's own affair
Tensor linearAutocast(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  return at::linear(x, weight, bias);
}

TORCH_LIBRARY_FRAGMENT(cleft, library) { library.def("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor"); }
TORCH_LIBRARY_IMPL(cleft, CompositeExplicitAutograd, library) { library.impl("linear", linear); }
TORCH_LIBRARY_IMPL(cleft, Autograd, library) { library.impl("linear", linearAutograd); }
TORCH_LIBRARY_IMPL(cleft, AutocastCPU, library) { library.impl("linear", linearAutocast); }
TORCH_LIBRARY_IMPL(cleft, AutocastCUDA, library) { library.impl("linear", linearAutocast); }

}  // namespace

}  // namespace cleft
