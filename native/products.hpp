// Matrix products with the library that is faster on the processor at hand.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace cleft {

// x [R, K], weight [N, K], bias [N] or none: x weight^T + bias, [R, N]. Below autograd and autocast.
at::Tensor linearProduct(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

// residual [R, N] + x weight^T + bias, [R, N].
at::Tensor linearSum(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias);

}  // namespace cleft
