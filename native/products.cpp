// libtorch multiplies float32 matrices with MKL, which runs its slower kernels on processors that are not Intel's: 75
// to 97 GFLOP/s of 118 on a core of an AMD EPYC of the fourth generation (oneDNN: 84 to 109), where kernels.hpp's reach
// 112 to 117, and join what stands before and behind a product with it. The choice is by the processor and the shape,
// and not by measurement: a run that goes on must compute the same bits.
#include "products.hpp"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels.hpp"
#include "scratch.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

namespace cleft {

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Rows of an input that are multiplied together, steps that are summed together: blocks that stay in a core's own
// cache.
constexpr int64_t blockRows = 96, blockSteps = 384;
// Rows that a product works on at once.
constexpr int64_t tileRows = 6;
// Columns of a panel of a packed matrix.
constexpr int64_t panelColumns = 64;

bool isAmd() {
#if defined(__x86_64__) && defined(__GNUC__)
  unsigned int most = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0, &most, &b, &c, &d) != 0 && b == 0x68747541 && d == 0x69746e65 && c == 0x444d4163;
#else
  return false;
#endif
}

// null where libtorch multiplies. CLEFT_PRODUCTS=own or =libtorch is for tests and measurements.
const Kernels* productKernels() {
  static const Kernels* chosen = [] {
    const char* wanted = std::getenv("CLEFT_PRODUCTS");
    return (wanted == nullptr ? isAmd() : std::strcmp(wanted, "own") == 0) ? kernels() : nullptr;
  }();
  return chosen;
}

bool isPlain(const Tensor& tensor) {
  return tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.layout() == at::kStrided;
}

bool isPlain(const Prologue& prologue, int64_t width) {
  if (prologue.kind != Prologue::Kind::norm) return true;
  const auto fits = [&](const Tensor& tensor) {
    return isPlain(tensor) && tensor.dim() == 1 && tensor.size(0) == width;
  };
  return fits(prologue.weight) && fits(prologue.bias);
}

// Rows of a layer's input, and what they go through.
class Rows {
 public:
  Rows(const Kernels& kernels, const Tensor& x, const Prologue& prologue)
      : kernels(kernels),
        kind(prologue.kind),
        eps(static_cast<float>(prologue.eps)),
        kept(x.contiguous()),
        width(x.size(1)),
        from(kept.const_data_ptr<float>()) {
    if (kind != Prologue::Kind::norm) return;
    weight = prologue.weight.contiguous();
    bias = prologue.bias.contiguous();
  }

  bool isDirect() const { return kind == Prologue::Kind::none; }
  const float* at(int64_t row) const { return from + row * width; }

  // Writes rows to `to`, `stride` apart; `ofInput` is multiplied by the activation's derivative, `statistics` become
  // the norm's means, and its factors behind them. Each may be null.
  void write(int64_t begin, int64_t end, float* to, int64_t stride, float* ofInput, float* means,
             float* factors) const {
    for (int64_t row = begin; row < end; ++row, to += stride) {
      const float* x = at(row);
      if (kind == Prologue::Kind::none) {
        std::memcpy(to, x, static_cast<size_t>(width) * sizeof(float));
      } else if (kind == Prologue::Kind::gelu) {
        kernels.gelu(width, x, to, ofInput == nullptr ? nullptr : ofInput + row * width);
      } else {
        float mean, factor;
        kernels.normalise(width, x, weight.const_data_ptr<float>(), bias.const_data_ptr<float>(), eps, to, &mean,
                          &factor);
        if (means != nullptr) means[row] = mean;
        if (factors != nullptr) factors[row] = factor;
      }
    }
  }

 private:
  const Kernels& kernels;
  Prologue::Kind kind;
  float eps;
  Tensor kept, weight, bias;

 public:
  const int64_t width;

 private:
  const float* from;
};

// The transpose of a weight [N, K] in panels of columns, each [K, panelColumns]: zeros fill the last.
class Panels {
 public:
  Panels(const Kernels& kernels, const Tensor& weight) : columns(weight.size(0)), steps(weight.size(1)) {
    const int64_t panels = roundedUp(columns, panelColumns) / panelColumns;
    data = scratchOf(panels * steps * panelColumns);
    const bool isTransposed = weight.stride(0) == 1 && weight.stride(1) >= columns;
    const Tensor kept = isTransposed ? weight : weight.contiguous();
    const float* from = kept.const_data_ptr<float>();
    const int64_t stride = kept.stride(isTransposed ? 1 : 0);
    at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t panel = begin; panel < end; ++panel) {
        float* to = data.get() + panel * steps * panelColumns;
        const int64_t first = panel * panelColumns, count = std::min(panelColumns, columns - first);
        if (count < panelColumns) std::fill(to, to + steps * panelColumns, 0.f);
        if (!isTransposed) {
          kernels.transpose(count, steps, from + first * stride, stride, to, panelColumns);
          continue;
        }
        for (int64_t step = 0; step < steps; ++step)
          std::memcpy(to + step * panelColumns, from + step * stride + first,
                      static_cast<size_t>(count) * sizeof(float));
      }
    });
  }

  const float* panel(int64_t column) const { return data.get() + column * steps; }

  const int64_t columns, steps;

 private:
  Scratch data;
};

// c [rows, columns] += a [rows, steps] times columns of the panels.
void multiplyBlock(const Kernels& kernels, const float* a, int64_t aStride, int64_t rows, const Panels& weight,
                   float* c) {
  const int64_t columns = weight.columns, whole = columns / panelColumns * panelColumns;
  for (int64_t first = 0; first < weight.steps; first += blockSteps) {
    const int64_t steps = std::min(blockSteps, weight.steps - first);
    for (int64_t column = 0; column < whole; column += panelColumns)
      kernels.multiply(rows, panelColumns, steps, a + first, aStride, 1, weight.panel(column) + first * panelColumns,
                       panelColumns, c + column, columns, true);
  }
  if (whole == columns) return;
  // the last columns beside the output, which has no room for the panel's zeros
  const int64_t rest = columns - whole, padded = roundedUp(rest, kernels.width);
  const Scratch sums = scratchOf(rows * padded);
  for (int64_t first = 0; first < weight.steps; first += blockSteps)
    kernels.multiply(rows, padded, std::min(blockSteps, weight.steps - first), a + first, aStride, 1,
                     weight.panel(whole) + first * panelColumns, panelColumns, sums.get(), padded, first > 0);
  for (int64_t row = 0; row < rows; ++row) kernels.add(rest, sums.get() + row * padded, c + row * columns + whole);
}

// What the sums begin with.
void begin(const Kernels& kernels, const float* residual, const float* bias, int64_t columns, float* output) {
  const size_t bytes = static_cast<size_t>(columns) * sizeof(float);
  if (residual != nullptr) {
    std::memcpy(output, residual, bytes);
    if (bias != nullptr) kernels.add(columns, bias, output);
  } else if (bias != nullptr) {
    std::memcpy(output, bias, bytes);
  } else {
    std::memset(output, 0, bytes);
  }
}

}  // namespace

bool multipliesRows(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const Prologue& prologue) {
  return productKernels() != nullptr && isPlain(x) && isPlain(weight) && x.numel() > 0 && weight.numel() > 0 &&
         (!isGiven(bias) || isPlain(*bias)) && isPlain(prologue, x.size(-1));
}

Tensor multiplyRows(const Tensor& x, const Prologue& prologue, const Tensor& weight, const OptionalTensor& bias,
                    const Tensor& residual) {
  const Kernels& kernels = *productKernels();
  const Rows rows(kernels, x, prologue);
  const Panels panels(kernels, weight);
  const int64_t count = x.size(0), columns = weight.size(0);
  const Tensor shift = isGiven(bias) ? bias->contiguous() : Tensor();
  const Tensor first = residual.defined() ? residual.contiguous() : residual;
  const float* shifts = shift.defined() ? shift.const_data_ptr<float>() : nullptr;
  const float* residuals = first.defined() ? first.const_data_ptr<float>() : nullptr;
  Tensor output = at::empty({count, columns}, x.options());
  float* to = output.mutable_data_ptr<float>();
  // even shares of whole tiles
  const int64_t parts = std::max<int64_t>(at::get_num_threads(), roundedUp(count, blockRows) / blockRows);
  const auto border = [&](int64_t part) { return std::min(count, roundedUp(count * part / parts, tileRows)); };
  at::parallel_for(0, parts, 1, [&](int64_t begunAt, int64_t endsAt) {
    const Scratch scratch = rows.isDirect() ? nullptr : scratchOf((blockRows + tileRows) * rows.width);
    for (int64_t part = begunAt; part < endsAt; ++part) {
      const int64_t from = border(part), until = border(part + 1);
      if (from == until) continue;
      for (int64_t row = from; row < until; ++row)
        begin(kernels, residuals == nullptr ? nullptr : residuals + row * columns, shifts, columns, to + row * columns);
      if (!rows.isDirect()) rows.write(from, until, scratch.get(), rows.width, nullptr, nullptr, nullptr);
      multiplyBlock(kernels, rows.isDirect() ? rows.at(from) : scratch.get(), rows.width, until - from, panels,
                    to + from * columns);
    }
  });
  return output;
}

bool sumsRows(const Tensor& gradient, const Tensor& x, const Prologue& prologue) {
  if (productKernels() == nullptr || !isPlain(gradient) || !isPlain(x) || x.numel() == 0) return false;
  const int64_t rows = gradient.size(0), outputs = gradient.size(1), inputs = x.size(-1);
  if (!isPlain(prologue, inputs)) return false;
  // each thread sums into a matrix of its own: where these are smaller than what is read
  return outputs > 0 && at::get_num_threads() * outputs * inputs <= rows * (outputs + inputs);
}

WeightGradient weightGradient(const Tensor& gradient, const Tensor& x, const Prologue& prologue, bool wantsSum,
                              const Tensor& ofInput) {
  const Kernels& kernels = *productKernels();
  const Rows rows(kernels, x, prologue);
  const Tensor kept = gradient.contiguous();
  const float* from = kept.const_data_ptr<float>();
  const int64_t count = x.size(0), outputs = gradient.size(1), inputs = x.size(1);
  const int64_t padded = roundedUp(inputs, kernels.width);
  const int64_t parts = std::min<int64_t>(at::get_num_threads(), count);
  WeightGradient found;
  if (prologue.kind == Prologue::Kind::norm) {
    found.mean = at::empty({count, 1}, x.options());
    found.rstd = at::empty({count, 1}, x.options());
  }
  float* means = found.mean.defined() ? found.mean.mutable_data_ptr<float>() : nullptr;
  float* factors = found.rstd.defined() ? found.rstd.mutable_data_ptr<float>() : nullptr;
  float* derivatives = ofInput.defined() ? ofInput.mutable_data_ptr<float>() : nullptr;
  Tensor products = at::empty({parts, outputs, padded}, x.options());
  Tensor sums = wantsSum ? at::zeros({parts, outputs}, x.options()) : Tensor();
  at::parallel_for(0, parts, 1, [&](int64_t begunAt, int64_t endsAt) {
    const bool isDirect = rows.isDirect() && padded == inputs;
    const Scratch scratch = isDirect ? nullptr : scratchOf(blockRows * padded);
    if (padded > inputs) std::fill(scratch.get(), scratch.get() + blockRows * padded, 0.f);
    for (int64_t part = begunAt; part < endsAt; ++part) {
      const int64_t first = count * part / parts, last = count * (part + 1) / parts;
      float* product = products.mutable_data_ptr<float>() + part * outputs * padded;
      float* sum = wantsSum ? sums.mutable_data_ptr<float>() + part * outputs : nullptr;
      for (int64_t row = first; row < last; row += blockRows) {
        const int64_t end = std::min(last, row + blockRows);
        if (!isDirect) rows.write(row, end, scratch.get(), padded, derivatives, means, factors);
        if (sum != nullptr)
          for (int64_t k = row; k < end; ++k) kernels.add(outputs, from + k * outputs, sum);
        kernels.multiply(outputs, padded, end - row, from + row * outputs, 1, outputs,
                         isDirect ? rows.at(row) : scratch.get(), padded, product, padded, row > first);
      }
    }
  });
  // the first part's own memory is as good as a copy
  found.weight = products.select(0, 0);
  for (int64_t part = 1; part < parts; ++part) found.weight.add_(products.select(0, part));
  if (parts > 1 || padded > inputs) found.weight = found.weight.slice(1, 0, inputs).clone(at::MemoryFormat::Contiguous);
  if (wantsSum) found.sum = sums.sum(0);
  return found;
}

namespace {

// x weight^T of a few rows, where the weight is most of what is read: it is not packed, and threads share its columns.
// The weight's transpose lies row by row, as it does in a product with a gradient.
void multiplyAcross(const Kernels& kernels, const Tensor& x, const Tensor& weight, float* output) {
  const int64_t count = x.size(0), steps = x.size(1), columns = weight.size(0), stride = weight.stride(1);
  const float *from = x.const_data_ptr<float>(), *weights = weight.const_data_ptr<float>();
  const int64_t panels = roundedUp(columns, panelColumns) / panelColumns;
  at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t column = panel * panelColumns, width = std::min(panelColumns, columns - column);
      for (int64_t first = 0; first < steps; first += blockSteps)
        kernels.multiply(count, width, std::min(blockSteps, steps - first), from + first, steps, 1,
                         weights + first * stride + column, stride, output + column, columns, first > 0);
    }
  });
}

// The same where the weight itself lies row by row: its rows are those of the product, which is turned at the end.
void multiplyAlong(const Kernels& kernels, const Tensor& x, const Tensor& weight, float* output) {
  const int64_t count = x.size(0), steps = x.size(1), columns = weight.size(0);
  const int64_t padded = roundedUp(count, kernels.width);
  const float *from = x.const_data_ptr<float>(), *weights = weight.const_data_ptr<float>();
  const Scratch across = scratchOf(steps * padded);
  at::parallel_for(0, steps, std::max<int64_t>(kernels.width, 64), [&](int64_t begin, int64_t end) {
    kernels.transpose(count, end - begin, from + begin, steps, across.get() + begin * padded, padded);
    for (int64_t step = begin; step < end; ++step)
      std::fill(across.get() + step * padded + count, across.get() + (step + 1) * padded, 0.f);
  });
  constexpr int64_t mostRows = 8 * tileRows;
  const int64_t blocks = roundedUp(columns, mostRows) / mostRows;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    const Scratch products = scratchOf(mostRows * padded);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t row = block * mostRows, rows = std::min(mostRows, columns - row);
      for (int64_t first = 0; first < steps; first += blockSteps)
        kernels.multiply(rows, padded, std::min(blockSteps, steps - first), weights + row * steps + first, steps, 1,
                         across.get() + first * padded, padded, products.get(), padded, first > 0);
      kernels.transpose(rows, count, products.get(), padded, output + row, columns);
    }
  });
}

}  // namespace

Tensor linearProduct(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  if (!multipliesRows(x, weight, bias, {})) return at::linear(x, weight, bias);
  const Kernels& kernels = *productKernels();
  const bool isAcross = weight.stride(0) == 1 && weight.stride(1) >= weight.size(0);
  const bool isFew = x.size(0) < blockRows * at::get_num_threads();
  if (!isFew || (isAcross ? weight.size(0) % kernels.width != 0 : !weight.is_contiguous()))
    return multiplyRows(x, {}, weight, bias, Tensor());
  const Tensor rows = x.contiguous();
  Tensor output = at::empty({x.size(0), weight.size(0)}, x.options());
  (isAcross ? multiplyAcross : multiplyAlong)(kernels, rows, weight, output.mutable_data_ptr<float>());
  return isGiven(bias) ? output.add_(*bias) : output;
}

}  // namespace cleft
