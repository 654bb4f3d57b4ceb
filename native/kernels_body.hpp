// The kernels for one instruction set: CLEFT_TARGET and CLEFT_WIDTH are defined by the source that includes this. Each
// function carries its instruction set with it, so that nothing of the standard library is compiled for it.
#include <cmath>
#include <cstring>

#include "kernels.hpp"

#define CLEFT_UNROLLED _Pragma("GCC unroll 16")
#define CLEFT_KERNEL CLEFT_TARGET static
#define CLEFT_PART CLEFT_TARGET __attribute__((always_inline)) static inline

namespace cleft {

namespace {

constexpr int64_t W = CLEFT_WIDTH;
typedef float Vector __attribute__((vector_size(4 * W)));
typedef int32_t Integers __attribute__((vector_size(4 * W)));
// as it lies in memory
typedef float Memory __attribute__((vector_size(4 * W), aligned(4), may_alias));

CLEFT_PART Vector load(const float* from) { return *reinterpret_cast<const Memory*>(from); }
CLEFT_PART void store(float* to, Vector value) { *reinterpret_cast<Memory*>(to) = value; }
CLEFT_PART Vector all(float value) { return Vector{} + value; }
// by bits, where a float's own operations would keep a NaN's or a zero's sign
CLEFT_PART Vector select(Integers mask, Vector yes, Vector no) {
  return (Vector)((mask & (Integers)yes) | (~mask & (Integers)no));
}
CLEFT_PART Vector larger(Vector a, Vector b) { return select((Integers)(a > b), a, b); }

CLEFT_PART Integers below(int64_t count) {
  Integers lane;
  for (int i = 0; i < W; ++i) lane[i] = i;
  return (Integers)(lane < (Integers{} + static_cast<int32_t>(count)));
}

CLEFT_PART float sumOf(Vector value) {
  float lanes[W];
  store(lanes, value);
  for (int64_t half = W / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

CLEFT_PART float largestOf(Vector value) {
  float lanes[W];
  store(lanes, value);
  float most = lanes[0];
  for (int64_t i = 1; i < W; ++i) most = lanes[i] > most ? lanes[i] : most;
  return most;
}

// exp for x up to 88, to 1.5 units of the last place; 0 from about -87 down, and NaN of NaN. The argument is reduced by
// multiples of log 2 in two parts; the polynomial is that of Cephes' expf.
CLEFT_PART Vector exponential(Vector x) {
  const Integers isTiny = (Integers)(x < all(-87.f));
  const Vector magic = all(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vector shifted = select(isTiny, all(0.f), x) * 1.44269504088896341f + magic;
  const Vector n = shifted - magic;
  const Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vector p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.f;
  // into the exponent
  const Integers power = ((Integers)shifted + (127 - 0x4b400000)) << 23;
  return select(isTiny, all(0.f), p * (Vector)power);
}

// ---- products ----

// Sums stay in registers over all steps: 6 rows of 4 vectors take 24 of 32, 6 of 2 take 12 of 16.
constexpr int64_t tileRows = 6;
constexpr int64_t tileVectors = W == 16 ? 4 : 2;

template <int rows, int vectors>
CLEFT_KERNEL void tile(int64_t k, const float* a, int64_t rowStride, int64_t stepStride, const float* b,
                       int64_t bStride, float* c, int64_t cStride, bool adds) {
  Vector sums[rows][vectors];
  CLEFT_UNROLLED
  for (int r = 0; r < rows; ++r) {
    CLEFT_UNROLLED
    for (int v = 0; v < vectors; ++v) sums[r][v] = Vector{};
  }
  for (int64_t step = 0; step < k; ++step) {
    Vector right[vectors];
    CLEFT_UNROLLED
    for (int v = 0; v < vectors; ++v) right[v] = load(b + v * W);
    CLEFT_UNROLLED
    for (int r = 0; r < rows; ++r) {
      // not added to zero, which would be an instruction
      const Vector left = a[r * rowStride] - Vector{};
      CLEFT_UNROLLED
      for (int v = 0; v < vectors; ++v) sums[r][v] += left * right[v];
    }
    a += stepStride;
    b += bStride;
  }
  // added at the end, so that a long sum is one of sums of few steps, and rounds less
  CLEFT_UNROLLED
  for (int r = 0; r < rows; ++r) {
    CLEFT_UNROLLED
    for (int v = 0; v < vectors; ++v) {
      float* to = c + r * cStride + v * W;
      store(to, adds ? load(to) + sums[r][v] : sums[r][v]);
    }
  }
}

template <int vectors>
CLEFT_KERNEL void column(int64_t m, int64_t k, const float* a, int64_t rowStride, int64_t stepStride, const float* b,
                         int64_t bStride, float* c, int64_t cStride, bool adds) {
  int64_t row = 0;
  for (; row + tileRows <= m; row += tileRows)
    tile<tileRows, vectors>(k, a + row * rowStride, rowStride, stepStride, b, bStride, c + row * cStride, cStride,
                            adds);
  a += row * rowStride;
  c += row * cStride;
  switch (m - row) {
    case 5: return tile<5, vectors>(k, a, rowStride, stepStride, b, bStride, c, cStride, adds);
    case 4: return tile<4, vectors>(k, a, rowStride, stepStride, b, bStride, c, cStride, adds);
    case 3: return tile<3, vectors>(k, a, rowStride, stepStride, b, bStride, c, cStride, adds);
    case 2: return tile<2, vectors>(k, a, rowStride, stepStride, b, bStride, c, cStride, adds);
    case 1: return tile<1, vectors>(k, a, rowStride, stepStride, b, bStride, c, cStride, adds);
    default: return;
  }
}

CLEFT_KERNEL void multiply(int64_t m, int64_t n, int64_t k, const float* a, int64_t rowStride, int64_t stepStride,
                           const float* b, int64_t bStride, float* c, int64_t cStride, bool adds) {
  // columns outside: their part of b stays in the cache nearest by
  int64_t vector = 0;
  const int64_t vectors = n / W;
  for (; vector + tileVectors <= vectors; vector += tileVectors)
    column<tileVectors>(m, k, a, rowStride, stepStride, b + vector * W, bStride, c + vector * W, cStride, adds);
  b += vector * W;
  c += vector * W;
  switch (vectors - vector) {
#if CLEFT_WIDTH == 16
    case 3: return column<3>(m, k, a, rowStride, stepStride, b, bStride, c, cStride, adds);
    case 2: return column<2>(m, k, a, rowStride, stepStride, b, bStride, c, cStride, adds);
#endif
    case 1: return column<1>(m, k, a, rowStride, stepStride, b, bStride, c, cStride, adds);
    default: return;
  }
}

// ---- transposes ----

// Pairs of rows at a distance exchange the halves of their groups: after all distances, W x W lanes are transposed.
template <int distance>
CLEFT_PART void exchange(Vector* rows) {
  Integers low, high;
  CLEFT_UNROLLED
  for (int i = 0; i < W; ++i) {
    low[i] = (i & distance) == 0 ? i : W + i - distance;
    high[i] = (i & distance) == 0 ? i + distance : W + i;
  }
  CLEFT_UNROLLED
  for (int i = 0; i < W; ++i) {
    if ((i & distance) != 0) continue;
    const Vector first = rows[i], second = rows[i + distance];
    rows[i] = __builtin_shuffle(first, second, low);
    rows[i + distance] = __builtin_shuffle(first, second, high);
  }
}

CLEFT_KERNEL void transpose(int64_t rows, int64_t columns, const float* a, int64_t aStride, float* b, int64_t bStride) {
  const int64_t wholeRows = rows / W * W, wholeColumns = columns / W * W;
  for (int64_t row = 0; row < wholeRows; row += W) {
    for (int64_t column = 0; column < wholeColumns; column += W) {
      Vector block[W];
      CLEFT_UNROLLED
      for (int i = 0; i < W; ++i) block[i] = load(a + (row + i) * aStride + column);
#if CLEFT_WIDTH == 16
      exchange<8>(block);
#endif
      exchange<4>(block);
      exchange<2>(block);
      exchange<1>(block);
      CLEFT_UNROLLED
      for (int i = 0; i < W; ++i) store(b + (column + i) * bStride + row, block[i]);
    }
  }
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = row < wholeRows ? wholeColumns : 0; column < columns; ++column)
      b[column * bStride + row] = a[row * aStride + column];
}

// ---- softmax ----

CLEFT_KERNEL float exponentials(float* scores, int64_t count, int64_t padded, float scale, float* greatest) {
  const int64_t whole = count / W * W;
  const Integers mask = below(count - whole);
  const Vector least = all(-INFINITY);
  Vector most = least;
  for (int64_t i = 0; i < whole; i += W) most = larger(load(scores + i), most);
  if (whole < padded) most = larger(select(mask, load(scores + whole), least), most);
  const float largest = largestOf(most);
  *greatest = largest * scale;
  const Vector shift = all(largest);
  Vector sum{};
  for (int64_t i = 0; i < whole; i += W) {
    const Vector weight = exponential((load(scores + i) - shift) * scale);
    sum += weight;
    store(scores + i, weight);
  }
  for (int64_t i = whole; i < padded; i += W) {
    const Vector weight =
        select(i == whole ? mask : Integers{}, exponential((load(scores + i) - shift) * scale), Vector{});
    sum += weight;
    store(scores + i, weight);
  }
  return sumOf(sum);
}

CLEFT_KERNEL void softmaxBackward(float* scores, float* gradients, int64_t count, int64_t padded, float scale,
                                  float logSum, float mean) {
  const int64_t whole = count / W * W;
  for (int64_t i = 0; i < whole; i += W) {
    const Vector weight = exponential(load(scores + i) * scale - logSum);
    store(scores + i, weight);
    store(gradients + i, weight * (load(gradients + i) - mean) * scale);
  }
  const Integers mask = below(count - whole);
  for (int64_t i = whole; i < padded; i += W) {
    const Integers given = i == whole ? mask : Integers{};
    const Vector weight = select(given, exponential(load(scores + i) * scale - logSum), Vector{});
    store(scores + i, weight);
    store(gradients + i, select(given, weight * (load(gradients + i) - mean) * scale, Vector{}));
  }
}

// ---- element-wise ----

// Phi and phi of the normal distribution. With z = |x| / sqrt 2 and t = 1 / (1 + p z), erfc(z) = exp(-z^2) P(t) in the
// form of Abramowitz and Stegun 7.1.26, with a polynomial of degree 6, p = 0.55, fitted for this: 0.9e-8 in Phi.
CLEFT_PART void normal(Vector x, Vector* distribution, Vector* density) {
  const Vector size = (Vector)((Integers)x & 0x7fffffff);
  const Vector t = 1.f / (1.f + size * (0.55f * 0.70710678118654752f));
  const Vector bell = exponential(x * x * -0.5f);
  Vector tail = all(0.053662238f);
  tail = tail * t + -0.2590191115f;
  tail = tail * t + 0.3798571485f;
  tail = tail * t + -0.0207129986f;
  tail = tail * t + 0.1954209985f;
  tail = tail * t + 0.1507917285f;
  tail = tail * t * bell;
  *distribution = select((Integers)(x < Vector{}), tail, 1.f - tail);
  *density = bell * 0.39894228040143268f;
}

CLEFT_KERNEL void gelu(int64_t count, const float* x, float* output, float* gradient) {
  Vector distribution, density;
  int64_t i = 0;
  for (; i + W <= count; i += W) {
    const Vector value = load(x + i);
    normal(value, &distribution, &density);
    if (output != nullptr) store(output + i, value * distribution);
    if (gradient != nullptr) store(gradient + i, load(gradient + i) * (distribution + value * density));
  }
  if (i == count) return;
  float lanes[W] = {};
  const size_t bytes = static_cast<size_t>(count - i) * sizeof(float);
  memcpy(lanes, x + i, bytes);
  const Vector value = load(lanes);
  normal(value, &distribution, &density);
  if (output != nullptr) {
    store(lanes, value * distribution);
    memcpy(output + i, lanes, bytes);
  }
  if (gradient != nullptr) {
    memcpy(lanes, gradient + i, bytes);
    store(lanes, load(lanes) * (distribution + value * density));
    memcpy(gradient + i, lanes, bytes);
  }
}

CLEFT_KERNEL void add(int64_t count, const float* row, float* sum) {
  int64_t i = 0;
  for (; i + W <= count; i += W) store(sum + i, load(sum + i) + load(row + i));
  for (; i < count; ++i) sum[i] += row[i];
}

CLEFT_KERNEL float dot(int64_t count, const float* a, const float* b) {
  Vector sum{};
  int64_t i = 0;
  for (; i + W <= count; i += W) sum += load(a + i) * load(b + i);
  float rest = 0;
  for (; i < count; ++i) rest += a[i] * b[i];
  return sumOf(sum) + rest;
}

CLEFT_KERNEL void scale(int64_t count, const float* x, float factor, float* output) {
  int64_t i = 0;
  for (; i + W <= count; i += W) store(output + i, load(x + i) * factor);
  for (; i < count; ++i) output[i] = x[i] * factor;
}

CLEFT_KERNEL void normalise(int64_t count, const float* x, const float* weight, const float* bias, float eps,
                            float* output, float* mean, float* rstd) {
  const int64_t whole = count / W * W;
  Vector sums{};
  float rest = 0;
  for (int64_t i = 0; i < whole; i += W) sums += load(x + i);
  for (int64_t i = whole; i < count; ++i) rest += x[i];
  const float middle = (sumOf(sums) + rest) / static_cast<float>(count);
  Vector squares{};
  rest = 0;
  for (int64_t i = 0; i < whole; i += W) {
    const Vector difference = load(x + i) - middle;
    squares += difference * difference;
  }
  for (int64_t i = whole; i < count; ++i) rest += (x[i] - middle) * (x[i] - middle);
  const float factor = 1.f / std::sqrt((sumOf(squares) + rest) / static_cast<float>(count) + eps);
  for (int64_t i = 0; i < whole; i += W)
    store(output + i, (load(x + i) - middle) * factor * load(weight + i) + load(bias + i));
  for (int64_t i = whole; i < count; ++i) output[i] = (x[i] - middle) * factor * weight[i] + bias[i];
  *mean = middle;
  *rstd = factor;
}

constexpr Kernels table = {W, multiply, transpose, exponentials, softmaxBackward, gelu, add, dot, scale, normalise};

}  // namespace

}  // namespace cleft
