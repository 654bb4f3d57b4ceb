// softmax(q k^T / sqrt(d)) v of one sequence with itself, on the CPU. libtorch's fused kernel multiplies at half of the
// processor's rate in float32, and slower in bfloat16, which is computed in float32 here. Here the scores of some
// queries stay in a core's own cache, between products that run at the rate. Queries, keys and values are one tensor,
// and so is their gradient: nothing is split, copied or joined again. An operator of the namespace `cleft`, as those in
// fused.cpp; what is no such tensor goes to libtorch's.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels.hpp"
#include "scratch.hpp"

namespace cleft {

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Floats of scores that are worked on together: a part of a core's own cache.
constexpr int64_t blockScores = 48 * 1024;

void check(const Tensor& joined, int64_t heads) {
  TORCH_CHECK(joined.dim() == 3 && heads > 0 && joined.size(2) % (3 * heads) == 0,
              "expected queries, keys and values [B, T, 3 * heads * d] of ", heads, " heads, but received ",
              joined.sizes());
}

bool fits(const Tensor& joined) {
  const auto type = joined.scalar_type();
  return joined.is_cpu() && (type == at::kFloat || type == at::kBFloat16) && joined.layout() == at::kStrided &&
         joined.numel() > 0 && kernels() != nullptr;
}

// [B, T, 3 H d] to [3, B, H, T, d]
Tensor perHead(const Tensor& joined, int64_t heads) {
  return joined.unflatten(2, {3, heads, -1}).permute({2, 0, 3, 1, 4});
}

Tensor merged(const Tensor& attended) { return attended.transpose(1, 2).flatten(2); }

// as the functions below take it
Tensor single(const Tensor& tensor) { return tensor.to(at::kFloat).contiguous(); }

// libtorch's
Tensor plain(const Tensor& joined, int64_t heads) {
  const Tensor parts = perHead(joined, heads);
  return merged(at::scaled_dot_product_attention(parts[0], parts[1], parts[2]));
}

// In operators that have gradients of every order, which libtorch's fused kernel has not.
Tensor differentiable(const Tensor& joined, int64_t heads) {
  const Tensor parts = perHead(joined, heads), queries = parts[0];
  const double scale = 1 / std::sqrt(static_cast<double>(queries.size(-1)));
  // weights in float32 in between, at least
  const auto type = at::promote_types(joined.scalar_type(), at::kFloat);
  const Tensor weights = (queries * scale).matmul(parts[1].mT()).softmax(-1, type);
  return merged(weights.to(joined.scalar_type()).matmul(parts[2]));
}

struct Sizes {
  int64_t batch, tokens, heads, width;
  // to whole vectors; no multiple of the distance at which rows fall onto each other in the cache
  int64_t paddedTokens, paddedWidth;
  int64_t queries;  // of a block
  float scale;

  Sizes(const Kernels& kernels, const Tensor& joined, int64_t heads)
      : batch(joined.size(0)),
        tokens(joined.size(1)),
        heads(heads),
        width(joined.size(2) / (3 * heads)),
        paddedTokens(roundedUp(tokens, kernels.width)),
        paddedWidth(roundedUp(width, kernels.width)),
        scale(static_cast<float>(1 / std::sqrt(static_cast<double>(width)))) {
    if (paddedTokens % (2 * kernels.width) == 0) paddedTokens += kernels.width;
    // even blocks of whole tiles of the products
    const int64_t most = std::clamp<int64_t>(blockScores / paddedTokens / 6 * 6, 6, 120);
    const int64_t blocks = roundedUp(tokens, most) / most;
    queries = std::min(tokens, roundedUp(roundedUp(tokens, blocks) / blocks, 6));
  }

  // of a row of the joined tensor
  int64_t stride() const { return 3 * heads * width; }
  int64_t outputStride() const { return heads * width; }
};

// Rows of a head to rows of whole vectors: zeros behind them.
void copyHead(const float* from, int64_t stride, int64_t rows, const Sizes& sizes, float* to) {
  for (int64_t row = 0; row < rows; ++row, from += stride, to += sizes.paddedWidth) {
    std::memcpy(to, from, static_cast<size_t>(sizes.width) * sizeof(float));
    std::fill(to + sizes.width, to + sizes.paddedWidth, 0.f);
  }
}

// [tokens, width] to [width, paddedTokens]
void transposeHead(const Kernels& kernels, const float* from, const Sizes& sizes, float* to) {
  kernels.transpose(sizes.tokens, sizes.width, from, sizes.stride(), to, sizes.paddedTokens);
  for (int64_t row = 0; row < sizes.width; ++row)
    std::fill(to + row * sizes.paddedTokens + sizes.tokens, to + (row + 1) * sizes.paddedTokens, 0.f);
}

// output [B, T, H d] and the logarithms of the sums of the scores' exponentials [B, H, T]
void attendHead(const Kernels& kernels, const Sizes& sizes, const float* joined, float* output, float* logSums,
                float* scratch) {
  const int64_t apart = sizes.heads * sizes.width, padded = sizes.paddedTokens;
  float* keys = scratch;                                       // [width, paddedTokens]
  float* values = keys + sizes.width * padded;                 // [tokens, paddedWidth]
  float* scores = values + sizes.tokens * sizes.paddedWidth;   // [queries, paddedTokens]
  float* attended = scores + sizes.queries * padded;           // [queries, paddedWidth]
  float* sums = attended + sizes.queries * sizes.paddedWidth;  // [queries]
  transposeHead(kernels, joined + apart, sizes, keys);
  copyHead(joined + 2 * apart, sizes.stride(), sizes.tokens, sizes, values);
  for (int64_t first = 0; first < sizes.tokens; first += sizes.queries) {
    const int64_t rows = std::min(sizes.queries, sizes.tokens - first);
    kernels.multiply(rows, padded, sizes.width, joined + first * sizes.stride(), sizes.stride(), 1, keys, padded,
                     scores, padded, false);
    for (int64_t row = 0; row < rows; ++row) {
      float greatest;
      const float sum = kernels.exponentials(scores + row * padded, sizes.tokens, padded, sizes.scale, &greatest);
      logSums[first + row] = greatest + std::log(sum);
      sums[row] = sum;
    }
    kernels.multiply(rows, sizes.paddedWidth, sizes.tokens, scores, padded, 1, values, sizes.paddedWidth, attended,
                     sizes.paddedWidth, false);
    for (int64_t row = 0; row < rows; ++row)
      kernels.scale(sizes.width, attended + row * sizes.paddedWidth, 1 / sums[row],
                    output + (first + row) * sizes.outputStride());
  }
}

std::tuple<Tensor, Tensor> attend(const Tensor& joined, int64_t heads) {
  const Kernels& own = *kernels();
  const Sizes sizes(own, joined, heads);
  Tensor output = at::empty({sizes.batch, sizes.tokens, sizes.outputStride()}, joined.options());
  Tensor logSums = at::empty({sizes.batch, heads, sizes.tokens}, joined.options());
  const float* from = joined.const_data_ptr<float>();
  float *to = output.mutable_data_ptr<float>(), *sums = logSums.mutable_data_ptr<float>();
  at::parallel_for(0, sizes.batch * heads, 1, [&](int64_t begin, int64_t end) {
    const Scratch scratch = scratchOf(sizes.width * sizes.paddedTokens + sizes.tokens * sizes.paddedWidth +
                                      sizes.queries * (sizes.paddedTokens + sizes.paddedWidth + 1));
    for (int64_t index = begin; index < end; ++index) {
      const int64_t sample = index / heads, head = index % heads;
      attendHead(own, sizes, from + sample * sizes.tokens * sizes.stride() + head * sizes.width,
                 to + sample * sizes.tokens * sizes.outputStride() + head * sizes.width, sums + index * sizes.tokens,
                 scratch.get());
    }
  });
  return {output, logSums};
}

// Where the gradients of a head begin in the scratch.
struct BackwardScratch {
  float *keysAcross, *valuesAcross;        // [width, paddedTokens]
  float *keys, *ofKeys, *ofValues;         // [tokens, paddedWidth]
  float *queries, *gradients, *ofQueries;  // [queries, paddedWidth]
  float *weights, *ofScores;               // [queries, paddedTokens]

  static int64_t size(const Sizes& sizes) {
    return 2 * sizes.width * sizes.paddedTokens + 3 * sizes.tokens * sizes.paddedWidth +
           sizes.queries * (3 * sizes.paddedWidth + 2 * sizes.paddedTokens);
  }

  BackwardScratch(const Sizes& sizes, float* memory) {
    const auto take = [&](int64_t count) {
      float* taken = memory;
      memory += count;
      return taken;
    };
    for (float** one : {&keysAcross, &valuesAcross}) *one = take(sizes.width * sizes.paddedTokens);
    for (float** one : {&keys, &ofKeys, &ofValues}) *one = take(sizes.tokens * sizes.paddedWidth);
    for (float** one : {&queries, &gradients, &ofQueries}) *one = take(sizes.queries * sizes.paddedWidth);
    for (float** one : {&weights, &ofScores}) *one = take(sizes.queries * sizes.paddedTokens);
  }
};

void attendHeadBackward(const Kernels& kernels, const Sizes& sizes, const float* joined, const float* output,
                        const float* gradient, const float* logSums, float* ofJoined, const BackwardScratch& at) {
  const int64_t apart = sizes.heads * sizes.width, padded = sizes.paddedTokens, wide = sizes.paddedWidth;
  transposeHead(kernels, joined + apart, sizes, at.keysAcross);
  transposeHead(kernels, joined + 2 * apart, sizes, at.valuesAcross);
  copyHead(joined + apart, sizes.stride(), sizes.tokens, sizes, at.keys);
  const auto write = [&](const float* from, int64_t rows, float* to) {
    for (int64_t row = 0; row < rows; ++row)
      std::memcpy(to + row * sizes.stride(), from + row * wide, static_cast<size_t>(sizes.width) * sizeof(float));
  };
  for (int64_t first = 0; first < sizes.tokens; first += sizes.queries) {
    const int64_t rows = std::min(sizes.queries, sizes.tokens - first);
    const float* outputs = output + first * sizes.outputStride();
    const float* gradients = gradient + first * sizes.outputStride();
    copyHead(joined + first * sizes.stride(), sizes.stride(), rows, sizes, at.queries);
    copyHead(gradients, sizes.outputStride(), rows, sizes, at.gradients);
    kernels.multiply(rows, padded, sizes.width, at.queries, wide, 1, at.keysAcross, padded, at.weights, padded, false);
    kernels.multiply(rows, padded, sizes.width, at.gradients, wide, 1, at.valuesAcross, padded, at.ofScores, padded,
                     false);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t start = row * sizes.outputStride();
      kernels.softmaxBackward(at.weights + row * padded, at.ofScores + row * padded, sizes.tokens, padded, sizes.scale,
                              logSums[first + row], kernels.dot(sizes.width, outputs + start, gradients + start));
    }
    kernels.multiply(sizes.tokens, wide, rows, at.weights, 1, padded, at.gradients, wide, at.ofValues, wide, first > 0);
    kernels.multiply(sizes.tokens, wide, rows, at.ofScores, 1, padded, at.queries, wide, at.ofKeys, wide, first > 0);
    kernels.multiply(rows, wide, sizes.tokens, at.ofScores, padded, 1, at.keys, wide, at.ofQueries, wide, false);
    write(at.ofQueries, rows, ofJoined + first * sizes.stride());
  }
  write(at.ofKeys, sizes.tokens, ofJoined + apart);
  write(at.ofValues, sizes.tokens, ofJoined + 2 * apart);
}

Tensor attendBackward(const Tensor& joined, int64_t heads, const Tensor& output, const Tensor& logSums,
                      const Tensor& gradient) {
  const Kernels& own = *kernels();
  const Sizes sizes(own, joined, heads);
  Tensor ofJoined = at::empty_like(joined, joined.options(), at::MemoryFormat::Contiguous);
  at::parallel_for(0, sizes.batch * heads, 1, [&](int64_t begin, int64_t end) {
    const Scratch memory = scratchOf(BackwardScratch::size(sizes));
    const BackwardScratch scratch(sizes, memory.get());
    for (int64_t index = begin; index < end; ++index) {
      const int64_t sample = index / heads, head = index % heads;
      const int64_t start = sample * sizes.tokens * sizes.stride() + head * sizes.width;
      const int64_t outputStart = sample * sizes.tokens * sizes.outputStride() + head * sizes.width;
      attendHeadBackward(own, sizes, joined.const_data_ptr<float>() + start,
                         output.const_data_ptr<float>() + outputStart, gradient.const_data_ptr<float>() + outputStart,
                         logSums.const_data_ptr<float>() + index * sizes.tokens,
                         ofJoined.mutable_data_ptr<float>() + start, scratch);
    }
  });
  return ofJoined;
}

Tensor selfAttention(const Tensor& joined, int64_t heads) {
  check(joined, heads);
  if (!fits(joined)) return plain(joined, heads);
  return std::get<0>(attend(single(joined), heads)).to(joined.scalar_type());
}

struct SelfAttention : torch::autograd::Function<SelfAttention> {
  static Tensor forward(AutogradContext* context, const Tensor& given, int64_t heads) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [output, logSums] = attend(single(given), heads);
    output = output.to(given.scalar_type());
    context->save_for_backward({given, output, logSums});
    context->saved_data["heads"] = heads;
    return output;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor &given = saved[0], &output = saved[1], &logSums = saved[2];
    const int64_t heads = context->saved_data["heads"].toInt();
    if (c10::GradMode::is_enabled()) {
      return {torch::autograd::grad({differentiable(given, heads)}, {given}, gradients, true, true)[0], Tensor()};
    }
    const Tensor found = attendBackward(single(given), heads, single(output), logSums, single(gradients[0]));
    return {found.to(given.scalar_type()), Tensor()};
  }
};

Tensor selfAttentionAutograd(const Tensor& joined, int64_t heads) {
  check(joined, heads);
  return fits(joined) ? SelfAttention::apply(joined, heads) : plain(joined, heads);
}

TORCH_LIBRARY_FRAGMENT(cleft, library) { library.def("self_attention(Tensor joined, int heads) -> Tensor"); }
TORCH_LIBRARY_IMPL(cleft, CompositeExplicitAutograd, library) { library.impl("self_attention", selfAttention); }
TORCH_LIBRARY_IMPL(cleft, Autograd, library) { library.impl("self_attention", selfAttentionAutograd); }

}  // namespace

}  // namespace cleft
