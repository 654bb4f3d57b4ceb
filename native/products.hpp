// Products of linear layers, with kernels of our own on the processors where they are faster than libtorch's.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace cleft {

inline bool isGiven(const std::optional<at::Tensor>& tensor) { return tensor.has_value() && tensor->defined(); }

// [..., K] to [R, K]
inline at::Tensor rowsOf(const at::Tensor& tensor) { return tensor.reshape({-1, tensor.size(-1)}); }

// What the rows of a linear layer's input go through before the product: in blocks, while they are in the cache.
struct Prologue {
  enum class Kind { none, gelu, norm } kind = Kind::none;
  // of a LayerNorm
  at::Tensor weight, bias;
  double eps = 0;
};

// Whether the functions below take these, x [..., K], weight [N, K]; else libtorch does.
bool multipliesRows(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                    const Prologue& prologue);

// residual [R, N] or none + prologue(x [R, K]) weight^T + bias [N] or none: [R, N]. Below autograd and autocast.
at::Tensor multiplyRows(const at::Tensor& x, const Prologue& prologue, const at::Tensor& weight,
                        const std::optional<at::Tensor>& bias, const at::Tensor& residual);

struct WeightGradient {
  // [N, K], and [N] where asked for: the columns' sums
  at::Tensor weight, sum;
  // of a norm: each row's [R, 1]
  at::Tensor mean, rstd;
};

// Whether weightGradient() takes these, gradient [R, N], x [..., K].
bool sumsRows(const at::Tensor& gradient, const at::Tensor& x, const Prologue& prologue);

// gradient [R, N] and x [R, K]: gradient^T prologue(x), where the prologue is computed again. Of GELU, `ofInput` [R,
// K], where given, is multiplied by its derivative in the same pass.
WeightGradient weightGradient(const at::Tensor& gradient, const at::Tensor& x, const Prologue& prologue, bool wantsSum,
                              const at::Tensor& ofInput);

// x [R, K], weight [N, K], bias [N] or none: x weight^T + bias, [R, N]. Below autograd and autocast.
at::Tensor linearProduct(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

}  // namespace cleft
