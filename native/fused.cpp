// Fused blocks with a backward of their own. They are operators of the namespace `cleft` in libtorch's dispatcher, so
// TypeScript calls them, and autograd, autocast and meta tensors treat them, like any operator of ATen.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "vectorised.hpp"

namespace cleft {

namespace {

CLEFT_VECTORISED void forwardRows(float* output, const float* residual, const float* x, const float* gamma,
                                  int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t start = row * width;
    for (int64_t k = 0; k < width; ++k) output[start + k] = residual[start + k] + x[start + k] * gamma[k];
  }
}

CLEFT_VECTORISED void backwardRows(float* gradX, float* gradGamma, const float* gradient, const float* x,
                                   const float* gamma, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t start = row * width;
    for (int64_t k = 0; k < width; ++k) {
      gradX[start + k] = gradient[start + k] * gamma[k];
      gradGamma[k] += gradient[start + k] * x[start + k];
    }
  }
}

bool isPlain(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kFloat && tensor.is_contiguous() && tensor.is_cpu();
}

void check(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& gamma) {
  TORCH_CHECK(residual.sizes() == x.sizes(), "expected residual and x of one shape, but received ", residual.sizes(),
              " and ", x.sizes());
  TORCH_CHECK(gamma.dim() == 1 && x.dim() >= 1 && gamma.size(0) == x.size(-1), "expected gamma of shape [",
              x.dim() ? x.size(-1) : 0, "], the last dimension of x, but received ", gamma.sizes());
}

at::Tensor layerScaleResidual(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& gamma) {
  check(residual, x, gamma);
  if (!isPlain(residual) || !isPlain(x) || !isPlain(gamma) || x.numel() == 0) return at::addcmul(residual, x, gamma);
  at::Tensor output = at::empty_like(residual);
  const int64_t width = x.size(-1), rows = x.numel() / width;
  at::parallel_for(0, rows, std::max<int64_t>(1, at::internal::GRAIN_SIZE / width), [&](int64_t begin, int64_t end) {
    forwardRows(output.mutable_data_ptr<float>() + begin * width, residual.const_data_ptr<float>() + begin * width,
                x.const_data_ptr<float>() + begin * width, gamma.const_data_ptr<float>(), end - begin, width);
  });
  return output;
}

// The gradients of x and gamma in one pass over memory.
std::tuple<at::Tensor, at::Tensor> layerScaleResidualBackward(const at::Tensor& gradient, const at::Tensor& x,
                                                              const at::Tensor& gamma) {
  if (!isPlain(gradient) || !isPlain(x) || !isPlain(gamma) || x.numel() == 0) {
    std::vector<int64_t> leading;
    for (int64_t d = 0; d + 1 < x.dim(); ++d) leading.push_back(d);
    const at::Tensor product = gradient * x;
    return {gradient * gamma, leading.empty() ? product : product.sum(leading)};
  }
  at::Tensor gradX = at::empty_like(x);
  const int64_t width = x.size(-1), rows = x.numel() / width;
  const int64_t parts = std::min<int64_t>(rows, at::get_num_threads());
  at::Tensor partial = at::zeros({parts, width}, gamma.options());
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t first = rows * part / parts, last = rows * (part + 1) / parts;
      backwardRows(gradX.mutable_data_ptr<float>() + first * width, partial.mutable_data_ptr<float>() + part * width,
                   gradient.const_data_ptr<float>() + first * width, x.const_data_ptr<float>() + first * width,
                   gamma.const_data_ptr<float>(), last - first, width);
    }
  });
  return {gradX, partial.sum(0)};
}

at::Tensor callLayerScaleResidual(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& gamma) {
  static auto operation = c10::Dispatcher::singleton()
                              .findSchemaOrThrow("cleft::layer_scale_residual", "")
                              .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>();
  return operation.call(residual, x, gamma);
}

struct LayerScaleResidual : torch::autograd::Function<LayerScaleResidual> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& residual, const at::Tensor& x,
                            const at::Tensor& gamma) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, gamma});
    return callLayerScaleResidual(residual, x, gamma);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &gamma = saved[1];
    if (c10::GradMode::is_enabled()) {
      // a gradient of this gradient is wanted: in operators that have one
      std::vector<int64_t> leading;
      for (int64_t d = 0; d + 1 < x.dim(); ++d) leading.push_back(d);
      const at::Tensor product = gradients[0] * x;
      return {gradients[0], gradients[0] * gamma, leading.empty() ? product : product.sum(leading)};
    }
    auto [gradX, gradGamma] = layerScaleResidualBackward(gradients[0].contiguous(), x, gamma);
    return {gradients[0], gradX, gradGamma};
  }
};

at::Tensor layerScaleResidualAutograd(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& gamma) {
  return LayerScaleResidual::apply(residual, x, gamma);
}

TORCH_LIBRARY(cleft, library) {
  // residual + x * gamma, gamma over the last dimension (LayerScale, Touvron et al. 2021, with the block's residual
  // add)
  library.def("layer_scale_residual(Tensor residual, Tensor x, Tensor gamma) -> Tensor");
}
TORCH_LIBRARY_IMPL(cleft, CompositeExplicitAutograd, library) {
  library.impl("layer_scale_residual", layerScaleResidual);
}
TORCH_LIBRARY_IMPL(cleft, Autograd, library) { library.impl("layer_scale_residual", layerScaleResidualAutograd); }

}  // namespace

}  // namespace cleft
