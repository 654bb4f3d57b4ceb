// Loops of our own over float32 in a processor's widest vectors, for what libtorch's leave: small products without the
// cost of a library's call, and element-wise passes joined with what stands beside them.
#pragma once

#include <cstdint>

namespace cleft {

// Compiled for one instruction set. Matrices are row-major; a "step" is of the dimension that is summed over.
struct Kernels {
  // floats of a vector
  int64_t width;
  // c [m, n] = a [m, k] b [k, n], or added to c. a's element (row, step) lies at row * rowStride + step * stepStride;
  // n is a multiple of the width.
  void (*multiply)(int64_t m, int64_t n, int64_t k, const float* a, int64_t rowStride, int64_t stepStride,
                   const float* b, int64_t bStride, float* c, int64_t cStride, bool adds);
  // b [columns, rows], whose rows lie bStride apart, to the transpose of a [rows, columns].
  void (*transpose)(int64_t rows, int64_t columns, const float* a, int64_t aStride, float* b, int64_t bStride);
  // scores [count] to exp(scale * (scores - their greatest)), and zeros up to `padded`, a multiple of the width. Gives
  // the sum; `greatest` becomes the greatest of scale * scores.
  float (*exponentials)(float* scores, int64_t count, int64_t padded, float scale, float* greatest);
  // scores [count] to the weights p = exp(scale * scores - logSum), and gradients of weights to those of scores,
  // scale * p * (gradients - mean); zeros up to `padded` in both.
  void (*softmaxBackward)(float* scores, float* gradients, int64_t count, int64_t padded, float scale, float logSum,
                          float mean);
  // GELU with the exact distribution function: output = x Phi(x), and gradient *= Phi(x) + x phi(x). Either may be
  // null.
  void (*gelu)(int64_t count, const float* x, float* output, float* gradient);
  // sum += row
  void (*add)(int64_t count, const float* row, float* sum);
  float (*dot)(int64_t count, const float* a, const float* b);
  // output = x * factor
  void (*scale)(int64_t count, const float* x, float factor, float* output);
  // A row of LayerNorm: output = (x - mean) * rstd * weight + bias.
  void (*normalise)(int64_t count, const float* x, const float* weight, const float* bias, float eps, float* output,
                    float* mean, float* rstd);
};

// Those of the instruction set that libtorch has chosen for its own (ATEN_CPU_CAPABILITY lowers it); null where there
// are none.
const Kernels* kernels();

// Those of each instruction set; null where it was not compiled.
const Kernels* kernelsOfAvx512();
const Kernels* kernelsOfAvx2();

}  // namespace cleft
