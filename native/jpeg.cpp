// ITU-T T.81: baseline, Huffman-coded, one scan. The transform is libjpeg's jidctint (Loeffler, Ligtenberg and Moschytz
// 1989, 13 bits of fraction), which every libjpeg computes to the same bits.
#include "jpeg.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "vectorised.hpp"

namespace cleft {

namespace {

constexpr int kSide = 8;
constexpr int kBlockSize = kSide * kSide;
// Codes up to this length, and with AC coefficients two with their values that are together as long, are looked up.
constexpr int kLookUpBits = 11;
// More than any place in a block: how far one goes where the block ends.
constexpr int kEnd = 128;
// The sum of a block's coefficients up to which no number of the transform leaves 16 bits where libjpeg's has 16:
// beyond, its own versions for different processors differ. No encoder makes such a block of 8-bit samples, or hardly
// any.
constexpr int32_t kMostSum = 5900;

// Places of the coefficients in a block, of which two lie side by side; those of runs that lead beyond it are a place
// that nobody reads.
constexpr int kNobody = 2 * kBlockSize;
constexpr uint8_t kZigzag[kBlockSize] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                         12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                         35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                         58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};
constexpr auto kPlaces = [] {
  std::array<uint8_t, kBlockSize + 32> places{};
  places.fill(kNobody);
  for (int k = 0; k < kBlockSize; ++k) places[k] = kZigzag[k] / kSide * 2 * kSide + kZigzag[k] % kSide;
  return places;
}();

// A value of `size` bits as T.81 writes it (F.2.2.1): those that begin with 0 are negative.
CLEFT_INLINE int32_t extend(uint32_t bits, int size) {
  return static_cast<int32_t>(bits) - (bits >> (size - 1) == 0 ? (1 << size) - 1 : 0);
}

// What the next bits say of AC coefficients: one, or two, or one and the end, or the end. A second value of 0 is
// written where the next coefficient will be.
struct Entry {
  int16_t first = 0, second = 0;
  uint8_t firstRun = 0, secondRun = 0;  // zeros before them
  uint8_t advance = 0;                  // beyond the place after the first
  uint8_t length = 0;                   // bits; 0: they do not say
};

class HuffmanTable {
 public:
  bool isSet() const { return isSet_; }

  // False where the codes are none.
  bool set(const uint8_t* counts, const uint8_t* symbols, int number, bool isDc) {
    isSet_ = hasEntries_ = false;
    std::memset(short_, 0, sizeof(short_));
    std::copy(symbols, symbols + number, symbols_);
    uint32_t code = 0;
    int symbol = 0;
    for (int length = 1; length <= 16; ++length, code <<= 1) {
      offset_[length] = symbol - static_cast<int32_t>(code);
      for (int k = 0; k < counts[length - 1]; ++k, ++code, ++symbol) {
        // a code of ones only is none (as in libjpeg)
        if (code + 1 >= 1u << length) return false;
        if (isDc && symbols[symbol] > 11) return false;
        if (length > kLookUpBits) continue;
        uint16_t* begin = short_ + (code << (kLookUpBits - length));
        std::fill(begin, begin + (1 << (kLookUpBits - length)), static_cast<uint16_t>(length << 8 | symbols[symbol]));
      }
      // of 16 bits, left-aligned: where the codes of this length end
      end_[length] = code << (16 - length);
    }
    isSet_ = true;
    return true;
  }

  // Before entry() is asked.
  void makeEntries() {
    if (hasEntries_) return;
    for (uint32_t bits = 0; bits < 1u << kLookUpBits; ++bits) {
      Entry& entry = entries_[bits] = Entry{};
      const Coefficient one = coefficient(bits, kLookUpBits);
      if (one.length == 0) continue;
      entry.length = static_cast<uint8_t>(one.length);
      if (one.value == 0) {
        entry.advance = kEnd - 1;
        continue;
      }
      entry.first = one.value;
      entry.firstRun = one.run;
      const int left = kLookUpBits - one.length;
      const Coefficient two = coefficient(bits << one.length & ((1 << kLookUpBits) - 1), left);
      if (two.length == 0) continue;
      entry.length = static_cast<uint8_t>(one.length + two.length);
      entry.second = two.value;
      entry.secondRun = two.run;
      entry.advance = static_cast<uint8_t>(two.value == 0 ? kEnd : two.run + 1);
    }
    hasEntries_ = true;
  }

  const Entry& entry(uint32_t bits) const { return entries_[bits]; }

  // The symbol and the length of the code that 16 bits begin with; a length of 0 where they begin with none.
  void decode(uint32_t bits, int& symbol, int& length) const {
    const uint16_t found = short_[bits >> (16 - kLookUpBits)];
    length = found >> 8;
    symbol = found & 0xff;
    if (length != 0) return;
    for (int longer = kLookUpBits + 1; longer <= 16; ++longer) {
      if (bits < end_[longer]) {
        length = longer;
        symbol = symbols_[(static_cast<int32_t>(bits >> (16 - longer)) + offset_[longer]) & 0xff];
        return;
      }
    }
  }

 private:
  struct Coefficient {
    int16_t value = 0;  // 0: the block ends here
    uint8_t run = 0;
    int length = 0;  // 0: the bits do not say
  };

  // Of kLookUpBits bits, of which some are known.
  Coefficient coefficient(uint32_t bits, int known) const {
    const int length = short_[bits] >> 8, run = short_[bits] >> 4 & 15, size = short_[bits] & 15;
    if (length == 0 || length + size > known || size > 10 || (size == 0 && run != 0)) return {};
    if (size == 0) return {0, 0, length};
    const uint32_t value = bits >> (kLookUpBits - length - size) & ((1u << size) - 1);
    return {static_cast<int16_t>(extend(value, size)), static_cast<uint8_t>(run), length + size};
  }

  bool isSet_ = false, hasEntries_ = false;
  Entry entries_[1 << kLookUpBits];
  uint16_t short_[1 << kLookUpBits];  // length << 8 | symbol
  uint8_t symbols_[256] = {};
  uint32_t end_[17] = {};
  int32_t offset_[17] = {};
};

// The bits of a scan, without the bytes that are stuffed in. At a marker come zeros, which are counted.
class Bits {
 public:
  Bits(const uint8_t* at, const uint8_t* end) : at_(at), end_(end) {}

  // 32 bits or more are there afterwards.
  CLEFT_INLINE void refill() {
    if (count_ >= 32) return;
    if (end_ - at_ >= 8) {
      uint64_t next;
      std::memcpy(&next, at_, sizeof(next));
      // where no byte is 0xff
      if (((~next - 0x0101010101010101u) & next & 0x8080808080808080u) == 0) {
        buffer_ |= bigEndian(next) >> count_;
        const int bytes = (63 - count_) >> 3;
        at_ += bytes;
        count_ += 8 * bytes;
        // what was added beyond them comes again
        buffer_ &= ~uint64_t{0} << (64 - count_);
        return;
      }
    }
    refillSlowly();
  }

  CLEFT_INLINE uint32_t peek(int bits) const { return static_cast<uint32_t>(buffer_ >> (64 - bits)); }
  CLEFT_INLINE void skip(int bits) {
    buffer_ <<= bits;
    count_ -= bits;
  }
  CLEFT_INLINE uint32_t take(int bits) {
    const uint32_t taken = peek(bits);
    skip(bits);
    return taken;
  }

  // Whether bits were taken that are not there.
  bool isBeyond() const { return count_ < zeros_; }

  // Passes a marker that follows at once: the bits before it fill a byte.
  bool pass(uint8_t marker) {
    refillSlowly();
    const int left = count_ - zeros_;
    if (left < 0 || left > 7 || end_ - at_ < 2 || at_[0] != 0xff || at_[1] != marker) return false;
    at_ += 2;
    buffer_ = 0;
    count_ = zeros_ = 0;
    return true;
  }

 private:
  static uint64_t bigEndian(uint64_t value) {
#if defined(__GNUC__)
    return __builtin_bswap64(value);
#else
    uint64_t swapped = 0;
    for (int k = 0; k < 8; ++k, value >>= 8) swapped = swapped << 8 | (value & 0xff);
    return swapped;
#endif
  }

  void refillSlowly() {
    while (count_ <= 56) {
      uint64_t byte = 0;
      if (at_ == end_ || (*at_ == 0xff && (end_ - at_ < 2 || at_[1] != 0))) {
        zeros_ += 8;
      } else {
        byte = *at_;
        at_ += byte == 0xff ? 2 : 1;
      }
      buffer_ |= byte << (56 - count_);
      count_ += 8;
    }
  }

  const uint8_t* at_;
  const uint8_t* end_;
  uint64_t buffer_ = 0;  // the next bit is the highest
  int count_ = 0, zeros_ = 0;
};

// Two blocks, a row of the one and a row of the other by turns, and what nobody reads.
struct alignas(64) Blocks {
  int16_t values[2 * kBlockSize + 2 * kSide] = {};
};

// One dimension of the transform, of several columns at once.
template <typename Lanes>
CLEFT_INLINE void transform(const Lanes* in, Lanes* out, int32_t shift, int32_t half) {
  const Lanes z1 = (in[2] + in[6]) * 4433;
  const Lanes even2 = z1 - in[6] * 15137, even3 = z1 + in[2] * 6270;
  const Lanes even0 = (in[0] + in[4]) * 8192 + half, even1 = (in[0] - in[4]) * 8192 + half;
  const Lanes a0 = even0 + even3, a3 = even0 - even3, a1 = even1 + even2, a2 = even1 - even2;
  const Lanes z5 = (in[7] + in[3] + in[5] + in[1]) * 9633;
  const Lanes y1 = (in[7] + in[1]) * -7373, y2 = (in[5] + in[3]) * -20995;
  const Lanes y3 = (in[7] + in[3]) * -16069 + z5, y4 = (in[5] + in[1]) * -3196 + z5;
  const Lanes b0 = in[7] * 2446 + y1 + y3, b1 = in[5] * 16819 + y2 + y4;
  const Lanes b2 = in[3] * 25172 + y2 + y3, b3 = in[1] * 12299 + y1 + y4;
  out[0] = (a0 + b3) >> shift;
  out[7] = (a0 - b3) >> shift;
  out[1] = (a1 + b2) >> shift;
  out[6] = (a1 - b2) >> shift;
  out[2] = (a2 + b1) >> shift;
  out[5] = (a2 - b1) >> shift;
  out[3] = (a3 + b0) >> shift;
  out[4] = (a3 - b0) >> shift;
}

constexpr int32_t kFirstShift = 11, kSecondShift = 18;
// rounding, and the level shift of 128
constexpr int32_t kFirstHalf = 1 << 10, kSecondHalf = (1 << 17) + (128 << 18);

#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector) && __has_builtin(__builtin_convertvector)
typedef int32_t Wide __attribute__((vector_size(64)));
typedef int16_t Narrow __attribute__((vector_size(32)));

// Both blocks, each by itself.
CLEFT_INLINE void transpose(Narrow* rows) {
  Narrow others[kSide];
  const auto zip = [](const Narrow* from, Narrow* to) __attribute__((always_inline)) {
    for (int k = 0; k < 4; ++k) {
      const Narrow a = from[k], b = from[k + 4];
      to[2 * k] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27);
      to[2 * k + 1] = __builtin_shufflevector(a, b, 4, 20, 5, 21, 6, 22, 7, 23, 12, 28, 13, 29, 14, 30, 15, 31);
    }
  };
  zip(rows, others);
  zip(others, rows);
  zip(rows, others);
  for (int k = 0; k < kSide; ++k) rows[k] = others[k];
}

CLEFT_INLINE bool inverseTransform(const int16_t* blocks, const int16_t* steps, uint8_t* target, int64_t step) {
  Narrow rows[kSide], factors[kSide];
  Wide in[kSide], out[kSide], sums{};
  std::memcpy(rows, blocks, sizeof(rows));
  std::memcpy(factors, steps, sizeof(factors));
  for (int k = 0; k < kSide; ++k) {
    in[k] = __builtin_convertvector(rows[k], Wide) * __builtin_convertvector(factors[k], Wide);
    sums += in[k] < 0 ? -in[k] : in[k];
  }
  int32_t sum = 0, other = 0;
  for (int k = 0; k < kSide; ++k) sum += sums[k], other += sums[k + kSide];
  if (std::max(sum, other) > kMostSum) return false;
  transform(in, out, kFirstShift, kFirstHalf);
  for (int k = 0; k < kSide; ++k) rows[k] = __builtin_convertvector(out[k], Narrow);
  transpose(rows);
  for (int k = 0; k < kSide; ++k) in[k] = __builtin_convertvector(rows[k], Wide);
  transform(in, out, kSecondShift, kSecondHalf);
  for (int k = 0; k < kSide; ++k) rows[k] = __builtin_convertvector(out[k], Narrow);
  transpose(rows);
  for (int k = 0; k < kSide; ++k) {
    const Narrow positive = rows[k] < 0 ? rows[k] - rows[k] : rows[k];
    const Narrow level = positive > 255 ? positive - positive + int16_t{255} : positive;
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    const Bytes bytes = __builtin_convertvector(level, Bytes);
    std::memcpy(target + k * step, &bytes, sizeof(bytes));
  }
  return true;
}
#else
CLEFT_INLINE bool inverseTransform(const int16_t* blocks, const int16_t* steps, uint8_t* target, int64_t step) {
  for (int half = 0; half < 2; ++half) {
    int32_t coefficients[kBlockSize], between[kBlockSize], sum = 0;
    for (int k = 0; k < kBlockSize; ++k) {
      const int place = k / kSide * 2 * kSide + half * kSide + k % kSide;
      coefficients[k] = blocks[place] * steps[place];
      sum += std::abs(coefficients[k]);
    }
    if (sum > kMostSum) return false;
    for (int column = 0; column < kSide; ++column) {
      int32_t in[kSide], out[kSide];
      for (int k = 0; k < kSide; ++k) in[k] = coefficients[k * kSide + column];
      transform(in, out, kFirstShift, kFirstHalf);
      for (int k = 0; k < kSide; ++k) between[k * kSide + column] = out[k];
    }
    for (int row = 0; row < kSide; ++row) {
      int32_t out[kSide];
      transform(between + row * kSide, out, kSecondShift, kSecondHalf);
      uint8_t* samples = target + row * step + half * kSide;
      for (int k = 0; k < kSide; ++k) samples[k] = static_cast<uint8_t>(std::clamp(out[k], 0, 255));
    }
  }
  return true;
}
#endif

struct Component {
  uint8_t id = 0;
  int across = 1, down = 1;  // blocks in a unit of the scan
  int quantisation = 0, dc = 0, ac = 0;
  int32_t last = 0;  // the DC coefficient before
};

uint32_t big16(const uint8_t* at) { return static_cast<uint32_t>(at[0]) << 8 | at[1]; }

class Decoder {
 public:
  Decoder(const uint8_t* bytes, size_t count, int64_t mostPixels, Levels& levels)
      : at_(bytes), end_(bytes + count), mostPixels_(mostPixels), levels_(levels) {}

  bool run() {
    if (end_ - at_ < 4 || at_[0] != 0xff || at_[1] != 0xd8) return false;
    at_ += 2;
    while (end_ - at_ >= 4 && at_[0] == 0xff) {
      const uint8_t marker = at_[1];
      const int64_t length = big16(at_ + 2);
      if (length < 2 || end_ - at_ < 2 + length) return false;
      const uint8_t* content = at_ + 4;
      at_ += 2 + length;
      if (marker == 0xda) return readScanHeader(content, length - 2) && decodeScan();
      if (!readSegment(marker, content, length - 2)) return false;
    }
    return false;
  }

 private:
  bool readSegment(uint8_t marker, const uint8_t* content, int64_t length) {
    switch (marker) {
      case 0xc0: return readFrame(content, length);
      case 0xc4: return readHuffmanTables(content, length);
      case 0xdb: return readQuantisation(content, length);
      case 0xdd:
        if (length != 2) return false;
        interval_ = big16(content);
        return true;
      case 0xe0:
        // version 1: another one is a warning in libjpeg
        if (length < 14 || std::memcmp(content, "JFIF", 5) != 0 || content[5] != 1) return false;
        isJfif_ = true;
        return true;
      // EXIF may turn it
      case 0xe1: return length < 4 || std::memcmp(content, "Exif", 4) != 0;
      // Adobe's says in which colours it is
      case 0xee: return false;
      default: return (marker > 0xe1 && marker < 0xf0) || marker == 0xfe;
    }
  }

  bool readQuantisation(const uint8_t* content, int64_t length) {
    for (; length >= 1 + kBlockSize; content += 1 + kBlockSize, length -= 1 + kBlockSize) {
      // tables 0 to 3, of 8 bits
      if (content[0] > 3) return false;
      for (int k = 0; k < kBlockSize; ++k)
        steps_[content[0]][kPlaces[k]] = steps_[content[0]][kPlaces[k] + kSide] = content[1 + k];
    }
    return length == 0;
  }

  bool readHuffmanTables(const uint8_t* content, int64_t length) {
    while (length >= 17) {
      const int place = content[0] & 15, isAc = content[0] >> 4;
      int number = 0;
      for (int k = 1; k <= 16; ++k) number += content[k];
      if (place > 1 || isAc > 1 || number > 256 || length < 17 + number) return false;
      if (!tables_[isAc][place].set(content + 1, content + 17, number, isAc == 0)) return false;
      content += 17 + number;
      length -= 17 + number;
    }
    return length == 0;
  }

  bool readFrame(const uint8_t* content, int64_t length) {
    if (number_ != 0 || length < 6 || content[0] != 8) return false;
    height_ = big16(content + 1);
    width_ = big16(content + 3);
    number_ = content[5];
    if ((number_ != 1 && number_ != 3) || length != 6 + 3 * number_) return false;
    for (int k = 0; k < number_; ++k) {
      const uint8_t* each = content + 6 + 3 * k;
      components_[k] = {each[0], each[1] >> 4, each[1] & 15, each[2]};
      const auto& [id, across, down, quantisation, dc, ac, last] = components_[k];
      // luma has as many blocks in a unit as colours, or twice as many across, or also down
      const int most = k == 0 ? 2 : 1;
      if (across < 1 || across > most || down < 1 || down > across || quantisation > 3) return false;
    }
    // alone, a component is in blocks from left to right, whatever its sampling
    if (number_ == 1) components_[0].across = components_[0].down = 1;
    return width_ > 0 && height_ > 0 && width_ * height_ <= mostPixels_;
  }

  bool readScanHeader(const uint8_t* content, int64_t length) {
    if (number_ == 0 || length != 4 + 2 * number_ || content[0] != number_) return false;
    // luma and two of colour, by JFIF's word or by their names (as in libjpeg)
    const bool isNamed = components_[0].id == 1 && components_[1].id == 2 && components_[2].id == 3;
    if (number_ == 3 && !isJfif_ && !isNamed) return false;
    for (int k = 0; k < number_; ++k) {
      Component& component = components_[k];
      const uint8_t* each = content + 1 + 2 * k;
      component.dc = each[1] >> 4;
      component.ac = each[1] & 15;
      if (each[0] != component.id || component.dc > 1 || component.ac > 1) return false;
      if (!tables_[0][component.dc].isSet() || !tables_[1][component.ac].isSet()) return false;
      // a table that is not there
      if (steps_[component.quantisation][0] == 0) return false;
    }
    tables_[1][components_[0].ac].makeEntries();
    const uint8_t* selection = content + 1 + 2 * number_;
    return selection[0] == 0 && selection[1] == 63 && selection[2] == 0;
  }

  bool decodeScan() {
    const Component& luma = components_[0];
    const int64_t unitWidth = kSide * luma.across, unitHeight = kSide * luma.down;
    const int64_t across = (width_ + unitWidth - 1) / unitWidth, down = (height_ + unitHeight - 1) / unitHeight;
    // a bit a block at least: a lie about the size is found before there is memory for it
    if (across * down * luma.across * luma.down > 8 * (end_ - at_)) return false;
    levels_.width = width_;
    levels_.height = height_;
    // two blocks are written at a time
    levels_.step = across * unitWidth + kSide;
    levels_.samples.resize(levels_.step * down * unitHeight);
    Bits bits(at_, end_);
    int64_t left = interval_;
    uint8_t restart = 0;
    for (int64_t row = 0; row < down; ++row) {
      for (int64_t column = 0; column < across;) {
        if (interval_ > 0 && left == 0) {
          if (!bits.pass(0xd0 + restart)) return false;
          restart = (restart + 1) & 7;
          left = interval_;
          for (Component& component : components_) component.last = 0;
        }
        const int64_t number = interval_ > 0 ? std::min(left, across - column) : across - column;
        left -= number;
        if (!decodeUnits(bits, row * unitHeight, column, column + number)) return false;
        column += number;
      }
    }
    return bits.pass(0xd9);
  }

  // Units of one row of them.
  bool decodeUnits(Bits& given, int64_t top, int64_t begin, int64_t end) {
    // a copy, which can be in registers
    Bits bits = given;
    Component& luma = components_[0];
    bool hasOne = false;
    uint8_t* target = nullptr;
    for (int64_t unit = begin; unit < end; ++unit) {
      for (int down = 0; down < luma.down; ++down) {
        for (int across = 0; across < luma.across; ++across) {
          if (!decodeBlock(bits, luma, hasOne ? kSide : 0)) return false;
          if (hasOne) {
            if (!write(target, luma)) return false;
          } else {
            target = &levels_.samples[(top + down * kSide) * levels_.step + unit * luma.across * kSide];
          }
          hasOne = !hasOne;
        }
      }
      for (int k = 1; k < number_; ++k) {
        if (!skipGray(bits, components_[k])) return false;
      }
      if (bits.isBeyond()) return false;
    }
    given = bits;
    return !hasOne || write(target, luma);
  }

  CLEFT_INLINE bool readDc(Bits& bits, Component& component) {
    bits.refill();
    int size, length;
    tables_[0][component.dc].decode(bits.peek(16), size, length);
    if (length == 0) return false;
    bits.skip(length);
    if (size > 0) component.last += extend(bits.take(size), size);
    return component.last >= -kMostSum && component.last <= kMostSum;
  }

  // Into blocks_, where it is zeros: the left one, or the other with an `offset` of kSide.
  CLEFT_INLINE bool decodeBlock(Bits& bits, Component& component, int offset) {
    if (!readDc(bits, component)) return false;
    const HuffmanTable& table = tables_[1][component.ac];
    int16_t* values = blocks_.values + offset;
    values[0] = static_cast<int16_t>(component.last);
    int place = 1;
    while (place < kBlockSize) {
      bits.refill();
      const Entry& entry = table.entry(bits.peek(kLookUpBits));
      // after the last place there is no second one, and the block's end is not written
      if (entry.length != 0 && place + entry.firstRun < kBlockSize - 1) {
        bits.skip(entry.length);
        place += entry.firstRun;
        values[kPlaces[place]] = entry.first;
        ++place;
        values[kPlaces[place + entry.secondRun]] = entry.second;
        place += entry.advance;
        continue;
      }
      int symbol, length;
      table.decode(bits.peek(16), symbol, length);
      if (length == 0) return false;
      bits.skip(length);
      const int size = symbol & 15;
      place += symbol >> 4;
      if (symbol == 0) {
        place += kEnd;
      } else if (symbol == 0xf0) {
        ++place;
      } else {
        if (size == 0 || size > 10) return false;
        values[kPlaces[place]] = static_cast<int16_t>(extend(bits.take(size), size));
        ++place;
      }
    }
    return (place < kEnd ? place : place - kEnd) <= kBlockSize;
  }

  // A block of colour, which must be none: all its coefficients are 0.
  bool skipGray(Bits& bits, Component& component) {
    if (!readDc(bits, component) || component.last != 0) return false;
    bits.refill();
    int symbol, length;
    tables_[1][component.ac].decode(bits.peek(16), symbol, length);
    bits.skip(length);
    return length != 0 && symbol == 0;
  }

  bool write(uint8_t* target, const Component& component);

  const uint8_t* at_;
  const uint8_t* end_;
  const int64_t mostPixels_;
  Levels& levels_;
  int64_t width_ = 0, height_ = 0;
  int64_t interval_ = 0;
  int number_ = 0;
  bool isJfif_ = false;
  Component components_[3];
  int16_t steps_[4][2 * kBlockSize] = {};
  HuffmanTable tables_[2][2];
  Blocks blocks_;
};

CLEFT_VECTORISED bool inverse(const int16_t* blocks, const int16_t* steps, uint8_t* target, int64_t step) {
  return inverseTransform(blocks, steps, target, step);
}

// The samples of both blocks, which are zeros again afterwards.
bool Decoder::write(uint8_t* target, const Component& component) {
  const bool isSound = inverse(blocks_.values, steps_[component.quantisation], target, levels_.step);
  std::memset(blocks_.values, 0, sizeof(blocks_.values));
  return isSound;
}

}  // namespace

bool decodeJpeg(const uint8_t* bytes, size_t count, int64_t mostPixels, Levels& levels) {
  return Decoder(bytes, count, mostPixels, levels).run();
}

}  // namespace cleft
