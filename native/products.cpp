// libtorch multiplies float32 matrices with MKL, which runs its slower kernels on processors that are not Intel's.
// oneDNN, which libtorch has too, is faster there by 10 to 30 % (AMD EPYC of the fourth generation, 2 cores, every
// shape of a vision transformer's linear layers, and a language model's at 61 to 221 tokens). The choice is by the
// processor, and not by measurement: a run that goes on must compute the same bits.
#include "products.hpp"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

namespace cleft {

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Scalars = c10::List<std::optional<at::Scalar>>;
using Linear = Tensor(const Tensor&, const Tensor&, const OptionalTensor&, std::string_view, Scalars,
                      std::optional<std::string_view>);
using LinearWithOther = Tensor(const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, std::string_view);

bool isAmd() {
#if defined(__x86_64__) && defined(__GNUC__)
  unsigned int most = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0, &most, &b, &c, &d) != 0 && b == 0x68747541 && d == 0x69746e65 && c == 0x444d4163;
#else
  return false;
#endif
}

// The operators, where this processor gains by them and this libtorch has them.
struct OneDnn {
  std::optional<c10::TypedOperatorHandle<Linear>> linear;
  std::optional<c10::TypedOperatorHandle<LinearWithOther>> sum;

  OneDnn() {
    if (!isAmd() || !at::globalContext().hasMKLDNN()) return;
    const auto plain = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    const auto binary = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", "binary"});
    // a libtorch whose operators are others throws here
    try {
      if (plain) linear = plain->typed<Linear>();
      if (binary) sum = binary->typed<LinearWithOther>();
    } catch (const std::exception&) {
      linear.reset();
      sum.reset();
    }
  }
};

const OneDnn& oneDnn() {
  static const OneDnn one;
  return one;
}

bool isPlain(const Tensor& tensor) {
  return tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.layout() == at::kStrided;
}

bool isGiven(const OptionalTensor& tensor) { return tensor.has_value() && tensor->defined(); }

bool fits(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  return at::globalContext().userEnabledMkldnn() && isPlain(x) && isPlain(weight) && x.numel() > 0 &&
         weight.numel() > 0 && (!isGiven(bias) || isPlain(*bias));
}

// as it lies, or as its transpose does
Tensor dense(const Tensor& weight) { return weight.t().is_contiguous() ? weight : weight.contiguous(); }

}  // namespace

Tensor linearProduct(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  if (oneDnn().linear && fits(x, weight, bias)) {
    return oneDnn().linear->call(x.contiguous(), dense(weight), bias, "none", Scalars(), std::nullopt);
  }
  return at::linear(x, weight, bias);
}

Tensor linearSum(const Tensor& residual, const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  if (oneDnn().sum && fits(x, weight, bias) && isPlain(residual)) {
    return oneDnn().sum->call(x.contiguous(), residual.contiguous(), dense(weight), bias, "add");
  }
  Tensor output = isGiven(bias) ? residual + *bias : residual.clone();
  return output.addmm_(x, weight.t());
}

}  // namespace cleft
