#include "prepare.hpp"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <variant>

#include "boundary.hpp"
#include "convert.hpp"
#include "promise_worker.hpp"
#include "square.hpp"

namespace cleft {

namespace {

// As in src/data/images/error.ts.
constexpr uintmax_t kMostBytes = uintmax_t{512} << 20;
constexpr int64_t kMostSide = 16384;
// What a thread keeps for its next image.
constexpr size_t kKept = size_t{16} << 20;

using Bytes = std::vector<uint8_t>;
using Source = std::variant<std::string, Bytes>;

// The bytes of a regular file that begins as a JPEG does; none otherwise.
void readJpeg(const std::string& name, Bytes& bytes) {
  bytes.clear();
  const std::filesystem::path path(std::u8string(name.begin(), name.end()));
  std::error_code error;
  // looked at before it is opened: opening a named pipe waits for a writer
  if (!std::filesystem::is_regular_file(path, error) || error) return;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error || size < 4 || size > kMostBytes) return;
  std::ifstream file;
  file.rdbuf()->pubsetbuf(nullptr, 0);
  file.open(path, std::ios::binary);
  char begin[3];
  if (!file.read(begin, sizeof(begin)) || std::memcmp(begin, "\xff\xd8\xff", sizeof(begin)) != 0) return;
  bytes.resize(size);
  std::memcpy(bytes.data(), begin, sizeof(begin));
  const auto rest = static_cast<std::streamsize>(size - sizeof(begin));
  if (!file.read(reinterpret_cast<char*>(bytes.data()) + sizeof(begin), rest)) bytes.clear();
}

// Prepares some images; those that it cannot are for the caller to read in another way.
class PrepareJpegs : public PromiseWorker {
 public:
  PrepareJpegs(Napi::Env env, std::vector<Source> sources, int64_t size, int64_t mostPixels)
      : PromiseWorker(env), sources_(std::move(sources)), size_(size), mostPixels_(mostPixels) {}

 protected:
  void Execute() override {
    thread_local Bytes file;
    thread_local Levels levels;
    try {
      pixels_.resize(sources_.size() * size_ * size_);
      boxes_.resize(sources_.size(), LevelBox{-1, -1, -1, -1});
      for (size_t k = 0; k < sources_.size(); ++k) {
        if (const auto* name = std::get_if<std::string>(&sources_[k])) readJpeg(*name, file);
        const Bytes& bytes = sources_[k].index() == 0 ? file : std::get<Bytes>(sources_[k]);
        uint8_t* target = &pixels_[k * size_ * size_];
        if (!decodeJpeg(bytes.data(), bytes.size(), mostPixels_, levels)) continue;
        if (shrinkToSquare(levels, size_, target)) boxes_[k] = otsuBox(target, size_, size_);
      }
    } catch (const std::exception&) {
      // no memory: the other way says so
      boxes_.assign(sources_.size(), LevelBox{-1, -1, -1, -1});
    }
    if (file.capacity() > kKept) Bytes().swap(file);
    if (levels.samples.capacity() > kKept) Bytes().swap(levels.samples);
  }

  void settle(napi_env env) override {
    napi_value pixels, boxes, result;
    if (copyOf(env, pixels_.data(), pixels_.size(), napi_uint8_array, 1, &pixels) &&
        copyOf(env, boxes_.data(), boxes_.size() * sizeof(LevelBox), napi_int32_array, 4, &boxes) &&
        napi_create_object(env, &result) == napi_ok &&
        napi_set_named_property(env, result, "pixels", pixels) == napi_ok &&
        napi_set_named_property(env, result, "boxes", boxes) == napi_ok) {
      napi_resolve_deferred(env, deferred_, result);
      return;
    }
    constexpr char text[] = "prepareJpegs: expected enough memory for the images, but none was left";
    napi_value message, error;
    if (napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) == napi_ok &&
        napi_create_error(env, nullptr, message, &error) == napi_ok) {
      napi_reject_deferred(env, deferred_, error);
    }
  }

 private:
  static bool copyOf(napi_env env, const void* data, size_t bytes, napi_typedarray_type type, size_t width,
                     napi_value* result) {
    void* target;
    napi_value buffer;
    if (napi_create_arraybuffer(env, bytes, &target, &buffer) != napi_ok) return false;
    if (bytes > 0) std::memcpy(target, data, bytes);
    return napi_create_typedarray(env, type, bytes / width, buffer, 0, result) == napi_ok;
  }

  std::vector<Source> sources_;
  const int64_t size_, mostPixels_;
  Bytes pixels_;
  std::vector<LevelBox> boxes_;
};

Source sourceOf(const Napi::Value& value) {
  if (value.IsString()) return value.As<Napi::String>().Utf8Value();
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    typeError("prepareJpegs: expected paths of files or their bytes, but received ", describe(value.Env(), value));
  }
  // a copy: JavaScript may let go of its own meanwhile
  const auto bytes = value.As<Napi::Uint8Array>();
  return Bytes(bytes.Data(), bytes.Data() + bytes.ByteLength());
}

// prepareJpegs(sources, size, mostPixels): a promise of pixels, [N, size, size], and boxes, [N, 4], -1 where an image
// is to be read in another way
Napi::Value prepareJpegs(Environment&, const Napi::CallbackInfo& info) {
  if (!info[0].IsArray()) {
    typeError("prepareJpegs: expected a list of sources, but received ", describe(info.Env(), info[0]));
  }
  const int64_t size = integerOf(info.Env(), info[1], {"prepareJpegs", "size"});
  const int64_t mostPixels = integerOf(info.Env(), info[2], {"prepareJpegs", "mostPixels"});
  if (size < 1 || size > kMostSide) {
    rangeError("prepareJpegs: expected a size from 1 to ", kMostSide, ", but received ", size);
  }
  const auto list = info[0].As<Napi::Array>();
  std::vector<Source> sources;
  for (uint32_t k = 0; k < list.Length(); ++k) sources.push_back(sourceOf(list.Get(k)));
  auto* worker = new PrepareJpegs(info.Env(), std::move(sources), size, mostPixels);
  worker->Queue();
  return {info.Env(), worker->promise()};
}

}  // namespace

void definePrepare(Napi::Object exports, Environment& environment) {
  define<prepareJpegs>(exports, environment, "prepareJpegs");
}

}  // namespace cleft
