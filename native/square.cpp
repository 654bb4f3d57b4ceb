// The arithmetic, and the order of its operations, are those of src/data/images/area.ts and otsu.ts, which say why.
#include "square.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "vectorised.hpp"

namespace cleft {

namespace {

constexpr double kSliver = 1e-3;
// Adding and taking away 1.5 x 2^52 rounds half to even.
constexpr double kRound = 6755399441055744.0;
// Rows of the result that are computed side by side: each is a chain of additions.
constexpr int64_t kRows = 4;

struct Edges {
  std::vector<int32_t> pixel;
  std::vector<double> fraction;
};

Edges edgesOf(int64_t source, int64_t target) {
  Edges edges{std::vector<int32_t>(target + 1), std::vector<double>(target + 1)};
  for (int64_t i = 0; i <= target; ++i) {
    const double at = static_cast<double>(i) * (static_cast<double>(source) / static_cast<double>(target));
    const double whole = std::floor(at + kSliver);
    edges.pixel[i] = static_cast<int32_t>(whole);
    edges.fraction[i] = at - whole < kSliver ? 0 : at - whole;
  }
  return edges;
}

// Sums of columns: `whole` rows that count whole, and a part of the one above and of the one below.
CLEFT_VECTORISED void sumColumns(const uint8_t* first, int64_t step, int64_t whole, const uint8_t* above,
                                 double aboveWeight, const uint8_t* below, double belowWeight, int32_t* sums,
                                 double* columns, int64_t width) {
  int64_t row = 0;
  if (whole == 0) std::memset(sums, 0, width * sizeof(*sums));
  if (whole >= 4) {
    const uint8_t *a = first, *b = a + step, *c = b + step, *d = c + step;
    for (int64_t k = 0; k < width; ++k) sums[k] = a[k] + b[k] + c[k] + d[k];
    row = 4;
  } else if (whole > 0) {
    for (int64_t k = 0; k < width; ++k) sums[k] = first[k];
    row = 1;
  }
  for (; row + 4 <= whole; row += 4) {
    const uint8_t *a = first + row * step, *b = a + step, *c = b + step, *d = c + step;
    for (int64_t k = 0; k < width; ++k) sums[k] += a[k] + b[k] + c[k] + d[k];
  }
  for (; row < whole; ++row) {
    const uint8_t* a = first + row * step;
    for (int64_t k = 0; k < width; ++k) sums[k] += a[k];
  }
  for (int64_t k = 0; k < width; ++k) {
    columns[k] = static_cast<double>(sums[k]) + aboveWeight * above[k] + belowWeight * below[k];
  }
}

// For each column, the sum of those before it, in each of kRows rows.
void sumBefore(const double* const* columns, double* const* before, int64_t width) {
  const double *c0 = columns[0], *c1 = columns[1], *c2 = columns[2], *c3 = columns[3];
  double *b0 = before[0], *b1 = before[1], *b2 = before[2], *b3 = before[3];
  double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (int64_t k = 0; k < width; ++k) {
    b0[k] = s0, b1[k] = s1, b2[k] = s2, b3[k] = s3;
    s0 += c0[k], s1 += c1[k], s2 += c2[k], s3 += c3[k];
  }
  b0[width] = s0, b1[width] = s1, b2[width] = s2, b3[width] = s3;
}

// What lies before each edge, and the means between them.
CLEFT_VECTORISED void meansOf(const double* columns, const double* before, const int32_t* pixel, const double* fraction,
                              double scale, double raise, double lower, double* edges, uint8_t* target, int64_t width) {
  for (int64_t i = 0; i <= width; ++i) edges[i] = before[pixel[i]] + fraction[i] * columns[pixel[i]];
  for (int64_t i = 0; i < width; ++i) {
    target[i] = static_cast<uint8_t>(static_cast<int32_t>((edges[i + 1] - edges[i]) * scale + raise - lower));
  }
}

// Both sides shrink, or stay. Rows of the result lie `targetStep` apart.
void shrink(const Levels& source, uint8_t* target, int64_t targetStep, int64_t width, int64_t height) {
  const Edges across = edgesOf(source.width, width), down = edgesOf(source.height, height);
  const double scale = static_cast<double>(width * height) / static_cast<double>(source.width * source.height);
  const bool isHalved = source.width == 2 * width && source.height == 2 * height;
  const double raise = isHalved ? 0.5 : kRound, lower = isHalved ? 0 : kRound;
  std::vector<int32_t> sums(source.width);
  // one more than there are columns: the last target ends there
  const int64_t room = source.width + 1;
  std::vector<double> memory(2 * kRows * room), edges(width + 1);
  double *columns[kRows], *before[kRows];
  for (int64_t k = 0; k < kRows; ++k) {
    columns[k] = &memory[2 * k * room];
    before[k] = columns[k] + room;
  }
  const auto rowOf = [&](int64_t row) { return &source.samples[row * source.step]; };
  for (int64_t row = 0; row < height; row += kRows) {
    const int64_t number = std::min(kRows, height - row);
    for (int64_t k = 0; k < number; ++k) {
      const int64_t start = down.pixel[row + k], end = down.pixel[row + k + 1];
      const bool isWhole = down.fraction[row + k] == 0;
      const int64_t first = isWhole ? start : start + 1;
      sumColumns(rowOf(std::min(first, source.height - 1)), source.step, std::max<int64_t>(0, end - first),
                 rowOf(start), isWhole ? 0 : 1 - down.fraction[row + k], rowOf(std::min(end, source.height - 1)),
                 down.fraction[row + k + 1], sums.data(), columns[k], source.width);
    }
    sumBefore(columns, before, source.width);
    for (int64_t k = 0; k < number; ++k) {
      meansOf(columns[k], before[k], across.pixel.data(), across.fraction.data(), scale, raise, lower, edges.data(),
              target + (row + k) * targetStep, width);
    }
  }
}

// As src/data/images/otsu.ts, otsuThreshold.
int otsuThreshold(const std::array<uint32_t, 256>& counts) {
  constexpr double epsilon = 1.1920928955078125e-7;
  double pixels = 0, sum = 0;
  for (int value = 0; value < 256; ++value) {
    pixels += counts[value];
    sum += static_cast<double>(value) * counts[value];
  }
  const double mean = sum / pixels;
  double best = 0, below = 0, meanBelow = 0;
  int threshold = 0;
  for (int value = 0; value < 256; ++value) {
    const double share = counts[value] / pixels;
    meanBelow *= below;
    below += share;
    const double above = 1 - below;
    if (std::min(below, above) < epsilon || std::max(below, above) > 1 - epsilon) continue;
    meanBelow = (meanBelow + value * share) / below;
    const double meanAbove = (mean - below * meanBelow) / above;
    const double variance = below * above * ((meanBelow - meanAbove) * (meanBelow - meanAbove));
    if (variance > best) {
      best = variance;
      threshold = value;
    }
  }
  return threshold;
}

// Four counts of each level, since equal levels that follow each other would wait for one another.
std::array<uint32_t, 256> countLevels(const uint8_t* levels, int64_t number) {
  std::array<std::array<uint32_t, 256>, 4> counts{};
  int64_t k = 0;
  for (; k + 4 <= number; k += 4) {
    ++counts[0][levels[k]];
    ++counts[1][levels[k + 1]];
    ++counts[2][levels[k + 2]];
    ++counts[3][levels[k + 3]];
  }
  for (; k < number; ++k) ++counts[0][levels[k]];
  for (int level = 0; level < 256; ++level) {
    counts[0][level] += counts[1][level] + counts[2][level] + counts[3][level];
  }
  return counts[0];
}

CLEFT_VECTORISED uint8_t largestOf(const uint8_t* levels, int64_t number) {
  uint8_t largest = 0;
  for (int64_t k = 0; k < number; ++k) largest = std::max(largest, levels[k]);
  return largest;
}

CLEFT_VECTORISED void largestOfEach(uint8_t* largest, const uint8_t* levels, int64_t number) {
  for (int64_t k = 0; k < number; ++k) largest[k] = std::max(largest[k], levels[k]);
}

}  // namespace

bool shrinkToSquare(const Levels& levels, int64_t size, uint8_t* target) {
  const bool isHigh = levels.height >= levels.width;
  const int64_t other = isHigh ? levels.width : levels.height, longest = isHigh ? levels.height : levels.width;
  const double product = static_cast<double>(other) * (static_cast<double>(size) / static_cast<double>(longest));
  const int64_t shorter = std::max<int64_t>(1, static_cast<int64_t>(product));
  const int64_t width = isHigh ? shorter : size, height = isHigh ? size : shorter;
  if (levels.width < width || levels.height < height) return false;
  const int64_t padding = (size - shorter) / 2;
  std::memset(target, 0, size * size);
  shrink(levels, target + (isHigh ? padding : padding * size), size, width, height);
  return true;
}

LevelBox otsuBox(const uint8_t* levels, int64_t width, int64_t height) {
  const int threshold = otsuThreshold(countLevels(levels, width * height));
  std::vector<uint8_t> columns(width);
  int64_t top = height, bottom = -1;
  for (int64_t row = 0; row < height; ++row) {
    const uint8_t* each = levels + row * width;
    largestOfEach(columns.data(), each, width);
    if (largestOf(each, width) <= threshold) continue;
    top = std::min(top, row);
    bottom = row;
  }
  if (bottom < 0) return {0, 0, static_cast<int32_t>(height - 1), static_cast<int32_t>(width - 1)};
  int64_t left = 0, right = width - 1;
  while (columns[left] <= threshold) ++left;
  while (columns[right] <= threshold) --right;
  return {static_cast<int32_t>(top), static_cast<int32_t>(left), static_cast<int32_t>(bottom),
          static_cast<int32_t>(right)};
}

}  // namespace cleft
