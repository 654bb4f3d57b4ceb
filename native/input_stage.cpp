// The last stage of an image's preprocessing on a CPU, in one pass over each image: what src/data/augment/input.ts says
// in operators. 8-bit images go through as gray levels, in the arithmetic of PIL and torchvision, to the bit where that
// is of integers.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "vectorised.hpp"

namespace cleft {

namespace {

// PIL keeps weights of 8-bit images as whole numbers of 2^-22, and coordinates of the nearest neighbour as those of
// 2^-16.
constexpr int kWeightBits = 22;
constexpr int kCoordinateBits = 16;
constexpr int64_t kMostPixels = 16384;
constexpr int kBlurRadius = 3;
// Rows that are resampled side by side: loops of this length become vectors, shorter ones are unrolled to single bytes.
constexpr int64_t kLanes = 32;
constexpr int64_t kBlock = 16;

int64_t upTo(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// One image's numbers, as input.ts writes them.
struct Parameters {
  double top, left, brightness, contrast, contrastFirst, sigma, affine[6];
};
constexpr int64_t kParameters = sizeof(Parameters) / sizeof(double);

struct Box {
  int32_t top, left, bottom, right;
};

// Which pixels of a row or column each wanted pixel is a weighted sum of (PIL, Resample.c, precompute_coeffs).
class Taps {
 public:
  Taps(int64_t wanted, int64_t side, int64_t stretched)
      : room_(2 * static_cast<int64_t>(std::ceil(std::max(1.0, static_cast<double>(side) / stretched))) + 1),
        first_(wanted),
        count_(wanted),
        weights_(wanted * room_),
        values_(room_) {}

  // `length` pixels from `start` are stretched to `stretched`; what is wanted begins at `from` of them.
  void set(int64_t start, int64_t length, int64_t stretched, int64_t from) {
    const double scale = static_cast<double>(length) / stretched, support = std::max(scale, 1.0), narrow = 1 / support;
    for (size_t pixel = 0; pixel < first_.size(); ++pixel) {
      const double center = (static_cast<double>(pixel) + from + 0.5) * scale;
      const int64_t begin = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
      const int64_t end = std::min(length, static_cast<int64_t>(center + support + 0.5));
      double sum = 0;
      for (int64_t tap = begin; tap < end; ++tap) {
        const double distance = (tap - center + 0.5) * narrow;
        sum += values_[tap - begin] = std::max(0.0, 1 - std::abs(distance));
      }
      int32_t* weights = &weights_[pixel * room_];
      for (int64_t tap = 0; tap < end - begin; ++tap) {
        weights[tap] = static_cast<int32_t>(0.5 + values_[tap] / sum * (1 << kWeightBits));
      }
      first_[pixel] = start + begin;
      count_[pixel] = static_cast<int32_t>(end - begin);
    }
  }

  int64_t wanted() const { return static_cast<int64_t>(first_.size()); }
  int64_t first(int64_t pixel) const { return first_[pixel]; }
  int64_t last(int64_t pixel) const { return first_[pixel] + count_[pixel] - 1; }
  int32_t count(int64_t pixel) const { return count_[pixel]; }
  const int32_t* weights(int64_t pixel) const { return &weights_[pixel * room_]; }

 private:
  int64_t room_;
  std::vector<int64_t> first_;
  std::vector<int32_t> count_, weights_;
  std::vector<double> values_;
};

// 16 bytes of each of 16 rows become 16 rows of 16 bytes.
CLEFT_INLINE void transposeBlock(const uint8_t* const* rows, int64_t column, uint8_t* target, int64_t step) {
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
  typedef uint8_t Bytes __attribute__((vector_size(kBlock)));
  Bytes some[kBlock], others[kBlock];
  for (int k = 0; k < kBlock; ++k) std::memcpy(&some[k], rows[k] + column, kBlock);
  for (int turn = 0; turn < 2; ++turn) {
    // the bytes of each and of the eighth after it, by turns: four times, and every byte is in its place
    const auto zip = [](const Bytes* from, Bytes* to) __attribute__((always_inline)) {
      for (int k = 0; k < 8; ++k) {
        const Bytes a = from[k], b = from[k + 8];
        to[2 * k] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        to[2 * k + 1] = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      }
    };
    zip(some, others);
    zip(others, some);
  }
  for (int k = 0; k < kBlock; ++k) std::memcpy(target + k * step, &some[k], kBlock);
#else
  for (int k = 0; k < kBlock; ++k) {
    for (int row = 0; row < kBlock; ++row) target[k * step + row] = rows[row][column + k];
  }
#endif
}

// Sums of rows that lie `step` apart, kLanes at a time; `Count` of them where it is known.
template <int Count>
CLEFT_INLINE void weighRows(const uint8_t* rows, int64_t step, const int32_t* weights, int count, uint8_t* target,
                            int64_t width) {
  for (int64_t start = 0; start < width; start += kLanes) {
    int32_t sums[kLanes];
    for (int k = 0; k < kLanes; ++k) sums[k] = 1 << (kWeightBits - 1);
    for (int tap = 0; tap < (Count == 0 ? count : Count); ++tap) {
      for (int k = 0; k < kLanes; ++k) sums[k] += weights[tap] * rows[tap * step + start + k];
    }
    uint8_t bytes[kLanes];
    for (int k = 0; k < kLanes; ++k) bytes[k] = static_cast<uint8_t>(sums[k] >> kWeightBits);
    std::memcpy(target + start, bytes, kLanes);
  }
}

CLEFT_INLINE void weigh(const uint8_t* rows, int64_t step, const int32_t* weights, int count, uint8_t* target,
                        int64_t width) {
  if (count == 2) return weighRows<2>(rows, step, weights, count, target, width);
  if (count == 3) return weighRows<3>(rows, step, weights, count, target, width);
  weighRows<0>(rows, step, weights, count, target, width);
}

// Rows `top` to `bottom` of an image, their columns resampled. kLanes rows are laid on their side, so that a column's
// sum is one of vectors. `strip` has room for side * kLanes bytes, `target` for a multiple of kLanes rows, `step`
// apart.
CLEFT_VECTORISED void resampleColumns(const uint8_t* image, int64_t side, int64_t top, int64_t bottom, const Taps& taps,
                                      uint8_t* strip, uint8_t* target, int64_t step) {
  const int64_t wanted = taps.wanted(), left = taps.first(0), right = taps.last(wanted - 1);
  uint8_t block[kBlock * kLanes] = {};
  const uint8_t *rows[kLanes], *columns[2][kBlock];
  for (int k = 0; k < kBlock; ++k) {
    columns[0][k] = block + k * kLanes;
    columns[1][k] = block + k * kLanes + kBlock;
  }
  for (int64_t row = top; row <= bottom; row += kLanes) {
    for (int k = 0; k < kLanes; ++k) rows[k] = image + std::min(row + k, bottom) * side;
    if (side < kBlock) {
      for (int64_t column = left; column <= right; ++column) {
        for (int k = 0; k < kLanes; ++k) strip[column * kLanes + k] = rows[k][column];
      }
    }
    for (int64_t column = left; column <= right && side >= kBlock; column += kBlock) {
      const int64_t at = std::min(column, side - kBlock);
      transposeBlock(rows, at, strip + at * kLanes, kLanes);
      transposeBlock(rows + kBlock, at, strip + at * kLanes + kBlock, kLanes);
    }
    uint8_t* narrowed = target + (row - top) * step;
    for (int64_t start = 0; start < wanted; start += kBlock) {
      for (int64_t k = 0; k < std::min(kBlock, wanted - start); ++k) {
        const int64_t pixel = start + k;
        weigh(strip + taps.first(pixel) * kLanes, kLanes, taps.weights(pixel), taps.count(pixel), block + k * kLanes,
              kLanes);
      }
      transposeBlock(columns[0], 0, narrowed + start, step);
      transposeBlock(columns[1], 0, narrowed + kBlock * step + start, step);
    }
  }
}

// `rows` begins with row `top`; rows are `step` apart, a multiple of kLanes.
CLEFT_VECTORISED void resampleRows(const uint8_t* rows, int64_t step, int64_t top, const Taps& taps, uint8_t* target) {
  for (int64_t pixel = 0; pixel < taps.wanted(); ++pixel) {
    weigh(rows + (taps.first(pixel) - top) * step, step, taps.weights(pixel), taps.count(pixel), target + pixel * step,
          step);
  }
}

CLEFT_VECTORISED int64_t sumOf(const uint8_t* levels, int64_t count) {
  int64_t sum = 0;
  for (int64_t k = 0; k < count; ++k) sum += levels[k];
  return sum;
}

// Levels as far from a gray as a factor says, as PIL blends them.
CLEFT_VECTORISED void blend(uint8_t* levels, int64_t count, float gray, float factor) {
  for (int64_t k = 0; k < count; ++k) {
    const auto level = static_cast<int32_t>(gray + factor * (static_cast<float>(levels[k]) - gray));
    levels[k] = static_cast<uint8_t>(std::min(std::max(level, 0), 255));
  }
}

// Weighted sums of seven rows, which may be the same ones.
CLEFT_VECTORISED void blurRows(const uint8_t* const* rows, const float* weights, float* target, int64_t width) {
  const uint8_t *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3], *e = rows[4], *f = rows[5], *g = rows[6];
  for (int64_t k = 0; k < width; ++k) {
    target[k] = weights[0] * static_cast<float>(a[k] + g[k]) + weights[1] * static_cast<float>(b[k] + f[k]) +
                weights[2] * static_cast<float>(c[k] + e[k]) + weights[3] * static_cast<float>(d[k]);
  }
}

// Weighted sums of seven neighbours, the first of which is `row`, to whole numbers, halves to even.
CLEFT_VECTORISED void blurColumns(const float* row, const float* weights, uint8_t* target, int64_t width) {
  // above 2^23 a float32 has no fraction: the addition rounds, and the lowest bits are the number
  constexpr float whole = 12582912.0f;
  for (int64_t k = 0; k < width; ++k) {
    const float sum = weights[0] * (row[k] + row[k + 6]) + weights[1] * (row[k + 1] + row[k + 5]) +
                      weights[2] * (row[k + 2] + row[k + 4]) + weights[3] * row[k + 3];
    target[k] = static_cast<uint8_t>(static_cast<int32_t>((sum + whole) - whole));
  }
}

// The places in an image of a line's pixels.
CLEFT_VECTORISED void placesOf(int32_t* places, int64_t count, uint32_t column, uint32_t columnStep, uint32_t row,
                               uint32_t rowStep, int32_t step) {
  for (uint32_t k = 0; k < static_cast<uint32_t>(count); ++k) {
    places[k] = (static_cast<int32_t>(row + rowStep * k) >> kCoordinateBits) * step +
                (static_cast<int32_t>(column + columnStep * k) >> kCoordinateBits);
  }
}

// What a table says of the levels at some places; four at a time, or the stores are what takes the time.
void lookUp(const uint8_t* levels, const int32_t* places, const float* table, float* target, int64_t count) {
  int64_t k = 0;
  for (; k + 4 <= count; k += 4) {
    const float four[4] = {table[levels[places[k]]], table[levels[places[k + 1]]], table[levels[places[k + 2]]],
                           table[levels[places[k + 3]]]};
    std::memcpy(target + k, four, sizeof(four));
  }
  for (; k < count; ++k) target[k] = table[levels[places[k]]];
}

int64_t floorDivide(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

// Narrows `begin` to `end`, which stay in order, to the whole numbers k with 0 <= start + slope * k < limit.
void narrow(int64_t start, int64_t slope, int64_t limit, int64_t& begin, int64_t& end) {
  int64_t low = begin, high = end;
  if (slope > 0) {
    low = -floorDivide(start, slope);
    high = -floorDivide(start - limit, slope);
  } else if (slope < 0) {
    low = floorDivide(start - limit, -slope) + 1;
    high = floorDivide(start, -slope) + 1;
  } else if (start < 0 || start >= limit) {
    high = begin;
  }
  begin = std::clamp(low, begin, end);
  end = std::clamp(high, begin, end);
}

// As torchvision normalises: to [0, 1], less the mean of 0.5, over the deviation of 0.5.
CLEFT_VECTORISED void normalise(const uint8_t* levels, float* target, int64_t count) {
  for (int64_t k = 0; k < count; ++k) target[k] = (static_cast<float>(levels[k]) / 255.0f - 0.5f) / 0.5f;
}

// The way of one image, and its memory, for one thread.
class Stage {
 public:
  Stage(int64_t side, int64_t size, int64_t stretched)
      : side_(side),
        size_(size),
        stretched_(stretched),
        step_(upTo(size, kLanes)),
        across_(size, side, stretched),
        down_(size, side, stretched),
        strip_(side * kLanes),
        narrowed_(upTo(side, kLanes) * step_),
        image_(size * step_),
        places_(size) {
    uint8_t levels[256];
    for (int level = 0; level < 256; ++level) levels[level] = static_cast<uint8_t>(level);
    normalise(levels, table_, 256);
  }

  void run(const uint8_t* source, const Box& box, const Parameters& parameters, float* result) {
    resample(source, box, parameters);
    jitter(parameters);
    if (parameters.sigma > 0) blur(parameters.sigma);
    affine(parameters.affine, result);
  }

 private:
  // PIL's two passes, each to gray levels. Pillow 10, which the published code pins, makes columns first.
  void resample(const uint8_t* source, const Box& box, const Parameters& parameters) {
    across_.set(box.left, int64_t{1} + box.right - box.left, stretched_, static_cast<int64_t>(parameters.left));
    down_.set(box.top, int64_t{1} + box.bottom - box.top, stretched_, static_cast<int64_t>(parameters.top));
    const int64_t top = down_.first(0), bottom = down_.last(size_ - 1);
    resampleColumns(source, side_, top, bottom, across_, strip_.data(), narrowed_.data(), step_);
    resampleRows(narrowed_.data(), step_, top, down_, image_.data());
  }

  // PIL's ImageEnhance: a blend with black, or with the image's mean gray level; what comes first, first.
  void jitter(const Parameters& parameters) {
    for (const bool first : {true, false}) {
      const bool isContrast = first == (parameters.contrastFirst != 0);
      const float factor = static_cast<float>(isContrast ? parameters.contrast : parameters.brightness);
      if (factor == 1) continue;
      double gray = 0;
      if (isContrast) {
        int64_t sum = 0;
        for (int64_t row = 0; row < size_; ++row) sum += sumOf(&image_[row * step_], size_);
        gray = std::floor(static_cast<double>(sum) / static_cast<double>(size_ * size_) + 0.5);
      }
      blend(image_.data(), size_ * step_, static_cast<float>(gray), factor);
    }
  }

  // torchvision's Gaussian of 7 x 7, its rows and columns one after the other; the border reflected.
  void blur(double sigma) {
    blurred_.resize(image_.size());
    row_.resize(step_ + 2 * kBlurRadius);
    double values[kBlurRadius + 1], sum = 0;
    for (int k = 0; k <= kBlurRadius; ++k) {
      const double distance = (k - kBlurRadius) / sigma;
      values[k] = std::exp(-0.5 * distance * distance);
      sum += k < kBlurRadius ? 2 * values[k] : values[k];
    }
    float weights[kBlurRadius + 1];
    for (int k = 0; k <= kBlurRadius; ++k) weights[k] = static_cast<float>(values[k] / sum);
    const uint8_t* rows[2 * kBlurRadius + 1];
    for (int64_t row = 0; row < size_; ++row) {
      for (int k = 0; k <= 2 * kBlurRadius; ++k) {
        const int64_t at = std::abs(row + k - kBlurRadius);
        rows[k] = &image_[(at < size_ ? at : 2 * (size_ - 1) - at) * step_];
      }
      float* middle = row_.data() + kBlurRadius;
      blurRows(rows, weights, middle, size_);
      for (int k = 1; k <= kBlurRadius; ++k) {
        middle[-k] = middle[k];
        middle[size_ - 1 + k] = middle[size_ - 1 - k];
      }
      blurColumns(row_.data(), weights, &blurred_[row * step_], size_);
    }
    image_.swap(blurred_);
  }

  // Affine and flip, nearest neighbour, black around (PIL, Geometry.c, affine_fixed), and the normalisation.
  void affine(const double* matrix, float* result) {
    int64_t m[6];
    for (int k = 0; k < 6; ++k) m[k] = static_cast<int64_t>(matrix[k]);
    constexpr int64_t whole = int64_t{1} << kCoordinateBits, half = whole / 2;
    const bool moves = m[0] != half || m[1] != whole || m[2] != 0 || m[3] != half || m[4] != 0 || m[5] != whole;
    for (int64_t y = 0; y < size_; ++y, result += size_) {
      if (moves) {
        move(m[0] + m[2] * y, m[1], m[3] + m[5] * y, m[4], result);
      } else {
        normalise(&image_[y * step_], result, size_);
      }
    }
  }

  // One row of the result: from where its pixels come.
  void move(int64_t column, int64_t columnStep, int64_t row, int64_t rowStep, float* result) {
    const int64_t limit = size_ << kCoordinateBits;
    int64_t begin = 0, end = size_;
    narrow(column, columnStep, limit, begin, end);
    narrow(row, rowStep, limit, begin, end);
    // inside of the image the numbers fit 32 bits
    placesOf(places_.data(), end - begin, static_cast<uint32_t>(column + columnStep * begin),
             static_cast<uint32_t>(columnStep), static_cast<uint32_t>(row + rowStep * begin),
             static_cast<uint32_t>(rowStep), static_cast<int32_t>(step_));
    std::fill(result, result + begin, table_[0]);
    lookUp(image_.data(), places_.data(), table_, result + begin, end - begin);
    std::fill(result + end, result + size_, table_[0]);
  }

  const int64_t side_, size_, stretched_, step_;
  Taps across_, down_;
  std::vector<uint8_t> strip_, narrowed_, image_, blurred_;
  std::vector<float> row_;
  std::vector<int32_t> places_;
  float table_[256];
};

// What was checked where the call comes from is checked again: wrong numbers must not crash.
std::vector<at::Tensor> checkedImages(at::TensorList images) {
  std::vector<at::Tensor> checked;
  for (const at::Tensor& some : images) {
    TORCH_CHECK(some.is_cpu() && some.scalar_type() == at::kByte && some.dim() == 4 && some.size(1) == 1 &&
                    some.size(2) == some.size(3) && some.size(3) == images[0].size(-1) && some.size(3) > 0 &&
                    some.size(3) <= kMostPixels,
                "expected images [N, 1, S, S] of uint8 in the CPU's memory, of one side from 1 to ", kMostPixels,
                ", but received ", some.sizes(), " of ", some.scalar_type(), " on ", some.device());
    checked.push_back(some.contiguous());
  }
  return checked;
}

// Where the pixels of each image are: all that there are one after the other, or as `order` says.
std::vector<const uint8_t*> sourcesOf(const std::vector<at::Tensor>& images, const std::optional<at::Tensor>& order,
                                      int64_t number) {
  std::vector<const uint8_t*> sources;
  const auto add = [&](const at::Tensor& some, int64_t k) {
    sources.push_back(some.const_data_ptr<uint8_t>() + k * some.size(2) * some.size(3));
  };
  if (order.has_value()) {
    TORCH_CHECK(order->is_cpu() && order->scalar_type() == at::kInt && order->is_contiguous() && order->dim() == 2 &&
                    order->size(1) == 2,
                "expected an order [B, 2] of int32, contiguous, but received ", order->sizes(), " of ",
                order->scalar_type());
    const auto* pair = order->const_data_ptr<int32_t>();
    for (int64_t k = 0; k < order->size(0); ++k, pair += 2) {
      const auto which = static_cast<size_t>(pair[0]);
      TORCH_CHECK(pair[0] >= 0 && which < images.size() && pair[1] >= 0 && pair[1] < images[which].size(0),
                  "expected an order of images that are there, but it has number ", pair[1], " of tensor ", pair[0]);
      add(images[which], pair[1]);
    }
  } else {
    for (const at::Tensor& some : images) {
      for (int64_t k = 0; k < some.size(0); ++k) add(some, k);
    }
  }
  TORCH_CHECK(static_cast<int64_t>(sources.size()) == number, "expected a box for each image, but received ", number,
              " boxes and ", sources.size(), " images");
  return sources;
}

void check(const at::Tensor& boxes, const at::Tensor& parameters, int64_t size, int64_t stretched) {
  TORCH_CHECK(boxes.is_cpu() && boxes.scalar_type() == at::kInt && boxes.is_contiguous() && boxes.dim() == 2 &&
                  boxes.size(1) == 4,
              "expected boxes [B, 4] of int32, contiguous, but received ", boxes.sizes(), " of ", boxes.scalar_type());
  TORCH_CHECK(parameters.is_cpu() && parameters.scalar_type() == at::kDouble && parameters.is_contiguous() &&
                  parameters.dim() == 2 && parameters.size(0) == boxes.size(0) && parameters.size(1) == kParameters,
              "expected parameters [", boxes.size(0), ", ", kParameters, "] of float64, contiguous, but received ",
              parameters.sizes(), " of ", parameters.scalar_type());
  TORCH_CHECK(size > kBlurRadius && size <= stretched && stretched <= 2 * kMostPixels && size <= kMostPixels,
              "expected a size from ", kBlurRadius + 1, " to ", kMostPixels,
              " and a stretch that is as long or longer, but received ", size, " and ", stretched);
}

void checkImage(int64_t number, const Box& box, const Parameters& parameters, int64_t side, int64_t room) {
  TORCH_CHECK(0 <= box.top && box.top <= box.bottom && box.bottom < side && 0 <= box.left && box.left <= box.right &&
                  box.right < side,
              "expected the box of image ", number, " inside of ", side, " x ", side, " pixels, but it is rows ",
              box.top, " to ", box.bottom, ", columns ", box.left, " to ", box.right);
  const auto within = [](double value, double low, double high) { return value >= low && value <= high; };
  bool sound = within(parameters.top, 0, room) && within(parameters.left, 0, room) &&
               within(parameters.brightness, 0, 1e6) && within(parameters.contrast, 0, 1e6) &&
               within(parameters.contrastFirst, 0, 1) && within(parameters.sigma, 0, 1e6);
  // no sum of these leaves 64 bits
  for (const double each : parameters.affine) sound = sound && within(each, -0x1p44, 0x1p44);
  TORCH_CHECK(sound, "expected an augmentation of image ", number,
              " whose crop is inside and whose factors, deviation and matrix are finite, but it is not so");
}

at::Tensor inputStage(at::TensorList images, const at::Tensor& boxes, const at::Tensor& parameters, int64_t size,
                      int64_t stretched, const std::optional<at::Tensor>& order) {
  check(boxes, parameters, size, stretched);
  const int64_t number = boxes.size(0);
  const std::vector<at::Tensor> held = checkedImages(images);
  const int64_t side = images.empty() ? 1 : images[0].size(-1);
  const std::vector<const uint8_t*> source = sourcesOf(held, order, number);
  static_assert(sizeof(Box) == 4 * sizeof(int32_t));
  const auto* box = reinterpret_cast<const Box*>(boxes.const_data_ptr<int32_t>());
  const auto* parameter = reinterpret_cast<const Parameters*>(parameters.const_data_ptr<double>());
  for (int64_t k = 0; k < number; ++k) checkImage(k, box[k], parameter[k], side, stretched - size);
  at::Tensor result = at::empty({number, 1, size, size}, at::kFloat);
  auto* pixels = result.mutable_data_ptr<float>();
  // each thread takes the next image: they differ in work, and another process may hold a thread up
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, std::min<int64_t>(number, at::get_num_threads()), 1, [&](int64_t, int64_t) {
    Stage stage(side, size, stretched);
    for (int64_t k; (k = next++) < number;) stage.run(source[k], box[k], parameter[k], pixels + k * size * size);
  });
  return result;
}

TORCH_LIBRARY_FRAGMENT(cleft, library) {
  // Prepared images [.., 1, S, S] to [B, 1, size, size] from -1 to 1. boxes: top, left, bottom, right, the last two
  // included. parameters: the crop's top and left in the stretched image, brightness, contrast, whether contrast comes
  // first, the blur's deviation (0: none), and column = [6] + [7] x + [8] y, row = [9] + [10] x + [11] y in 1/65536
  // pixels. order: of each image, the number of its tensor and its number there; without it all of them, in their
  // order.
  library.def(
      "input_stage(Tensor[] images, Tensor boxes, Tensor parameters, int size, int stretched, Tensor? order=None) -> "
      "Tensor");
}
TORCH_LIBRARY_IMPL(cleft, CPU, library) { library.impl("input_stage", inputStage); }

}  // namespace

}  // namespace cleft
