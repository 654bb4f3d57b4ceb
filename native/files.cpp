#include "files.hpp"

#include <ATen/Functions.h>

#include <cstring>
#include <filesystem>

#ifdef _WIN32
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "convert.hpp"

namespace cleft {

// A file mapped privately: tensors over it can be written to, and the file does not change.
class Mapping {
 public:
  explicit Mapping(const std::string& path) {
#ifdef _WIN32
    HANDLE file = CreateFileW(std::filesystem::u8path(path).c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr,
                              OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
    LARGE_INTEGER bytes;
    if (file == INVALID_HANDLE_VALUE || !GetFileSizeEx(file, &bytes)) {
      typeError("mapFile: expected a file that can be read, but '", path, "' cannot");
    }
    size_ = static_cast<size_t>(bytes.QuadPart);
    if (size_ > 0) {
      HANDLE section = CreateFileMappingW(file, nullptr, PAGE_WRITECOPY, 0, 0, nullptr);
      if (section != nullptr) data_ = MapViewOfFile(section, FILE_MAP_COPY, 0, 0, 0);
      if (section != nullptr) CloseHandle(section);
    }
    CloseHandle(file);
    if (size_ > 0 && data_ == nullptr)
      typeError("mapFile: expected '", path, "' to be mapped into memory, but it was not");
#else
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status{};
    if (file < 0 || fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
      const std::string reason = file < 0 ? std::strerror(errno) : "not a regular file";
      if (file >= 0) close(file);
      typeError("mapFile: expected a file that can be read, but '", path, "' cannot: ", reason);
    }
    size_ = static_cast<size_t>(status.st_size);
    void* address =
        size_ == 0 ? nullptr : mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file, 0);
    close(file);
    if (address == MAP_FAILED) {
      typeError("mapFile: expected '", path, "' to be mapped into memory, but it was not: ", std::strerror(errno));
    }
    data_ = address;
#endif
  }
  ~Mapping() {
    if (data_ == nullptr) return;
#ifdef _WIN32
    UnmapViewOfFile(data_);
#else
    munmap(data_, size_);
#endif
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  char* data() const { return static_cast<char*>(data_); }
  size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

namespace {

const napi_type_tag kMappingTag = {0x31c0a54e0d9f4b7a, 0x8c26d1f53e7b9042};

// mapFile(path): an opaque mapping, alive as long as a tensor or a JavaScript value refers to it
Napi::Value mapFile(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto* held = new std::shared_ptr<Mapping>(std::make_shared<Mapping>(stringOf(env, info[0], {"mapFile", "path"})));
  std::erase_if(environment.mappings, [](const std::weak_ptr<Mapping>& each) { return each.expired(); });
  environment.mappings.push_back(*held);
  auto external = Napi::External<std::shared_ptr<Mapping>>::New(
      env, held, [](Napi::Env, std::shared_ptr<Mapping>* dying) { delete dying; });
  napi_type_tag_object(env, external, &kMappingTag);
  return external;
}

std::shared_ptr<Mapping> mappingOf(Napi::Env env, napi_value value) {
  bool ours = false;
  if (Napi::Value(env, value).IsExternal()) napi_check_object_type_tag(env, value, &kMappingTag, &ours);
  if (!ours)
    typeError("tensorFromMapping: expected a mapping that mapFile() made, but received ", describe(env, value));
  return *Napi::External<std::shared_ptr<Mapping>>(env, value).Data();
}

struct View {
  std::vector<int64_t> shape, strides;
  int64_t storageOffset;
  at::ScalarType dtype;
};

// Checks that a view stays inside `bytes`: strides from a file are not to be trusted.
View viewOf(const Napi::CallbackInfo& info, size_t first, size_t bytes, const char* operation) {
  Napi::Env env = info.Env();
  View view;
  view.shape = integersOf(env, info[first], {operation, "shape"});
  view.storageOffset = integerOf(env, info[first + 2], {operation, "storageOffset"});
  view.dtype = dtypeOf(stringOf(env, info[first + 3], {operation, "dtype"}), {operation, "dtype"});
  int64_t elements = 1;
  for (int64_t size : view.shape) {
    if (size < 0 || __builtin_mul_overflow(elements, size, &elements)) {
      rangeError(operation, ": expected a shape of sizes that are not negative and fit 64 bits");
    }
  }
  if (isNullish(env, info[first + 1])) {
    view.strides.resize(view.shape.size());
    int64_t stride = 1;
    for (size_t k = view.shape.size(); k-- > 0;) {
      view.strides[k] = stride;
      stride *= std::max<int64_t>(view.shape[k], 1);
    }
  } else {
    view.strides = integersOf(env, info[first + 1], {operation, "strides"});
    if (view.strides.size() != view.shape.size()) rangeError(operation, ": expected as many strides as sizes");
  }
  int64_t last = view.storageOffset;
  bool inside = view.storageOffset >= 0;
  for (size_t k = 0; k < view.shape.size() && elements > 0; ++k) {
    int64_t span;
    inside = inside && view.strides[k] >= 0 && !__builtin_mul_overflow(view.shape[k] - 1, view.strides[k], &span) &&
             !__builtin_add_overflow(last, span, &last);
  }
  const auto available = static_cast<int64_t>(bytes / c10::elementSize(view.dtype));
  if (!inside || (elements > 0 && last >= available)) {
    rangeError(operation, ": expected a view inside the ", bytes, " bytes of its storage, but shape ",
               at::IntArrayRef(view.shape), ", strides ", at::IntArrayRef(view.strides), " and offset ",
               view.storageOffset, " reach beyond");
  }
  return view;
}

// tensorFromMapping(mapping, byteOffset, byteLength, shape, strides or null, storageOffset, dtype): no copy, unless the
// data is not aligned for its dtype
Napi::Value tensorFromMapping(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const char* operation = "tensorFromMapping";
  const auto mapping = mappingOf(env, info[0]);
  const int64_t offset = integerOf(env, info[1], {operation, "byteOffset"});
  const int64_t length = integerOf(env, info[2], {operation, "byteLength"});
  if (offset < 0 || length < 0 || static_cast<uint64_t>(offset) > mapping->size() ||
      static_cast<uint64_t>(length) > mapping->size() - static_cast<uint64_t>(offset)) {
    rangeError(operation, ": expected bytes inside the file's ", mapping->size(), ", but received ", length, " from ",
               offset);
  }
  const View view = viewOf(info, 3, static_cast<size_t>(length), operation);
  char* start = mapping->data() + offset;
  const size_t size = c10::elementSize(view.dtype);
  const auto options = at::TensorOptions().dtype(view.dtype);
  at::Tensor tensor;
  if (length == 0) {
    tensor = at::empty(view.shape, options);
  } else if (reinterpret_cast<uintptr_t>(start) % size != 0) {
    at::Tensor flat = at::empty({length / static_cast<int64_t>(size)}, options);
    std::memcpy(flat.mutable_data_ptr(), start, flat.nbytes());
    tensor = flat.as_strided(view.shape, view.strides, view.storageOffset);
  } else {
    at::Tensor flat = at::from_blob(start, {length / static_cast<int64_t>(size)}, [mapping](void*) {}, options);
    tensor = view.shape.size() == 1 && view.shape[0] == flat.size(0) && view.strides[0] == 1
                 ? flat
                 : flat.as_strided(view.shape, view.strides, view.storageOffset);
  }
  return {env, fromTensor(environment, tensor)};
}

// tensorFromBytes(bytes, shape, strides or null, storageOffset, dtype): a copy
Napi::Value tensorFromBytes(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const char* operation = "tensorFromBytes";
  if (!info[0].IsTypedArray())
    typeError(operation, ": expected bytes to be a Uint8Array, but received ", describe(env, info[0]));
  auto bytes = info[0].As<Napi::Uint8Array>();
  const View view = viewOf(info, 1, bytes.ByteLength(), operation);
  const auto elements = static_cast<int64_t>(bytes.ByteLength() / c10::elementSize(view.dtype));
  at::Tensor flat = at::empty({elements}, at::TensorOptions().dtype(view.dtype));
  if (elements > 0) std::memcpy(flat.mutable_data_ptr(), bytes.Data(), flat.nbytes());
  return {env, fromTensor(environment, flat.as_strided(view.shape, view.strides, view.storageOffset))};
}

// tensorFromStorage(storage, shape, strides or null, storageOffset, dtype): a view over the whole memory of another
// tensor, so that tensors which a file ties stay tied
Napi::Value tensorFromStorage(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const char* operation = "tensorFromStorage";
  const at::Tensor flat = tensorOf(environment, info[0], {operation, "storage"});
  if (!flat.has_storage() || !flat.is_cpu()) typeError(operation, ": expected a tensor with memory on the CPU");
  const View view = viewOf(info, 1, flat.storage().nbytes(), operation);
  at::Tensor tensor = at::empty({0}, flat.options().dtype(view.dtype));
  tensor.set_(flat.storage(), view.storageOffset, view.shape, view.strides);
  return {env, fromTensor(environment, tensor)};
}

// copyBytes(tensor, byteOffset, byteLength): bytes of a contiguous tensor on the CPU, for writing files piece by piece
Napi::Value copyBytes(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const char* operation = "copyBytes";
  const at::Tensor tensor = tensorOf(environment, info[0], {operation, "tensor"});
  const int64_t offset = integerOf(env, info[1], {operation, "byteOffset"});
  const int64_t length = integerOf(env, info[2], {operation, "byteLength"});
  if (!tensor.is_cpu() || !tensor.is_contiguous()) typeError(operation, ": expected a contiguous tensor on the CPU");
  const auto bytes = static_cast<int64_t>(tensor.nbytes());
  if (offset < 0 || length < 0 || offset > bytes || length > bytes - offset) {
    rangeError(operation, ": expected a range inside the tensor's ", bytes, " bytes, but received ", length, " from ",
               offset);
  }
  auto buffer = Napi::ArrayBuffer::New(env, static_cast<size_t>(length));
  if (length > 0) {
    std::memcpy(buffer.Data(), static_cast<const char*>(tensor.const_data_ptr()) + offset, static_cast<size_t>(length));
  }
  return Napi::Uint8Array::New(env, static_cast<size_t>(length), buffer, 0);
}

// dropPages(tensor): the pages of a mapped file that lie inside a contiguous tensor stop counting as memory of this
// process; they are read again where they are needed. What was written to them is lost. Nothing for other tensors.
Napi::Value dropPages(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"dropPages", "tensor"});
#ifndef _WIN32
  if (!tensor.has_storage() || !tensor.is_cpu() || !tensor.is_contiguous()) return info.Env().Undefined();
  const auto first = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const uintptr_t last = first + tensor.nbytes();
  for (const auto& each : environment.mappings) {
    const auto mapping = each.lock();
    if (mapping == nullptr) continue;
    const auto base = reinterpret_cast<uintptr_t>(mapping->data());
    if (first < base || last > base + mapping->size()) continue;
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t begin = (first + page - 1) / page * page;
    const uintptr_t end = last / page * page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
#endif
  return info.Env().Undefined();
}

}  // namespace

void defineFiles(Napi::Object exports, Environment& environment) {
  define<mapFile>(exports, environment, "mapFile");
  define<tensorFromMapping>(exports, environment, "tensorFromMapping");
  define<tensorFromBytes>(exports, environment, "tensorFromBytes");
  define<tensorFromStorage>(exports, environment, "tensorFromStorage");
  define<copyBytes>(exports, environment, "copyBytes");
  define<dropPages>(exports, environment, "dropPages");
}

}  // namespace cleft
