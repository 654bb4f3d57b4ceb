#include "tensor_data.hpp"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/TensorIndexing.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstring>

#include "convert.hpp"
#include "promise_worker.hpp"

namespace cleft {

namespace {

at::ScalarType dtypeOfTypedArray(napi_typedarray_type type) {
  switch (type) {
    case napi_int8_array: return at::kChar;
    case napi_uint8_array:
    case napi_uint8_clamped_array: return at::kByte;
    case napi_int16_array: return at::kShort;
    case napi_uint16_array: return at::kUInt16;
    case napi_int32_array: return at::kInt;
    case napi_uint32_array: return at::kUInt32;
    case napi_float32_array: return at::kFloat;
    case napi_float64_array: return at::kDouble;
    case napi_bigint64_array: return at::kLong;
    case napi_biguint64_array: return at::kUInt64;
    default: typeError("tensor: expected a typed array of numbers or bigints, but received another kind");
  }
}

// What a dtype becomes as a JavaScript typed array.
at::ScalarType readableDtype(at::ScalarType dtype) {
  switch (dtype) {
    case at::kHalf:
    case at::kBFloat16:
    case at::kFloat8_e4m3fn:
    case at::kFloat8_e5m2:
    case at::kFloat8_e4m3fnuz:
    case at::kFloat8_e5m2fnuz: return at::kFloat;
    case at::kComplexHalf: return at::kComplexFloat;
    default: return dtype;
  }
}

struct ArrayKind {
  napi_typedarray_type type;
  size_t perElement;  // complex numbers are pairs
};

ArrayKind arrayKindOf(at::ScalarType dtype) {
  switch (dtype) {
    case at::kChar: return {napi_int8_array, 1};
    case at::kBool:
    case at::kByte: return {napi_uint8_array, 1};
    case at::kShort: return {napi_int16_array, 1};
    case at::kUInt16: return {napi_uint16_array, 1};
    case at::kInt: return {napi_int32_array, 1};
    case at::kUInt32: return {napi_uint32_array, 1};
    case at::kFloat: return {napi_float32_array, 1};
    case at::kDouble: return {napi_float64_array, 1};
    case at::kLong: return {napi_bigint64_array, 1};
    case at::kUInt64: return {napi_biguint64_array, 1};
    case at::kComplexFloat: return {napi_float32_array, 2};
    case at::kComplexDouble: return {napi_float64_array, 2};
    default: typeError("toTypedArray: expected a dtype that JavaScript has, but the tensor is of ", dtypeName(dtype));
  }
}

napi_value typedArrayOver(napi_env env, ArrayKind kind, napi_value buffer, int64_t elements) {
  napi_value array;
  napi_create_typedarray(env, kind.type, static_cast<size_t>(elements) * kind.perElement, buffer, 0, &array);
  return array;
}

at::Tensor readable(const at::Tensor& tensor) {
  at::NoGradGuard noGrad;
  at::Tensor source = tensor.detach();
  if (source.layout() != at::kStrided) source = source.to_dense();
  return source.resolve_conj().resolve_neg();
}

// fromTypedArray(typed array, shape, dtype or null): a tensor with a copy of the data. Null keeps the array's own
// dtype.
Napi::Value fromTypedArray(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  napi_typedarray_type type;
  size_t length;
  void* data;
  napi_value buffer;
  if (napi_get_typedarray_info(env, info[0], &type, &length, &data, &buffer, nullptr) != napi_ok) {
    typeError("tensor: expected a typed array, but received ", describe(env, info[0]));
  }
  const auto shape = integersOf(env, info[1], {"tensor", "shape"});
  const at::ScalarType source = dtypeOfTypedArray(type);
  const at::ScalarType target =
      isNullish(env, info[2]) ? source : dtypeOf(stringOf(env, info[2], {"tensor", "dtype"}), {"tensor", "dtype"});
  int64_t elements = 1;
  for (int64_t size : shape) {
    if (size < 0) rangeError("tensor: expected sizes that are not negative, but received ", size);
    if (__builtin_mul_overflow(elements, size, &elements)) rangeError("tensor: expected a shape that fits 64 bits");
  }
  if (elements != static_cast<int64_t>(length)) {
    rangeError("tensor: expected ", elements, " elements for the shape ", at::IntArrayRef(shape), ", but received ",
               length);
  }
  at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(source));
  if (length > 0) std::memcpy(tensor.mutable_data_ptr(), data, tensor.nbytes());
  // complex comes as pairs of numbers in a shape with a last dimension of 2
  if (c10::isComplexType(target)) {
    tensor =
        at::view_as_complex(tensor.to(target == at::kComplexDouble ? at::kDouble : at::kFloat).contiguous()).to(target);
  } else {
    tensor = tensor.to(target);
  }
  return {env, fromTensor(environment, tensor)};
}

// toTypedArray(tensor): a copy of the values, row by row
Napi::Value toTypedArray(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const at::Tensor source = readable(tensorOf(environment, info[0], {"toTypedArray", "self"}));
  const at::ScalarType dtype = readableDtype(source.scalar_type());
  const ArrayKind kind = arrayKindOf(dtype);
  const size_t bytes = static_cast<size_t>(source.numel()) * c10::elementSize(dtype);
  void* data;
  napi_value buffer;
  if (napi_create_arraybuffer(env, bytes, &data, &buffer) != napi_ok) {
    throw Napi::Error::New(env, "toTypedArray: expected enough memory for the values, but none was left");
  }
  if (bytes > 0) {
    at::from_blob(data, source.sizes(), at::TensorOptions().dtype(dtype)).copy_(source);
  }
  return {env, typedArrayOver(env, kind, buffer, source.numel())};
}

// Reads a tensor back on a thread of Node's pool, so that the event loop turns meanwhile.
class ReadBack : public PromiseWorker {
 public:
  ReadBack(Napi::Env env, const at::Tensor& tensor) : PromiseWorker(env) {
    const at::Tensor source = readable(tensor);
    at::NoGradGuard noGrad;
    const at::ScalarType dtype = readableDtype(source.scalar_type());
    kind_ = arrayKindOf(dtype);
    if (source.is_cpu()) {
      // A later in-place change must not show in the result, so the copy is taken now, in memory order.
      values_ = source.to(dtype, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous);
    } else {
      values_ = at::empty(source.sizes(), at::TensorOptions().dtype(dtype).pinned_memory(true));
      values_.copy_(source.to(dtype), /*non_blocking=*/true);
      const c10::impl::VirtualGuardImpl guard(source.device().type());
      event_.emplace(source.device().type());
      event_->record(guard.getStream(source.device()));
    }
  }

 protected:
  void Execute() override {
    try {
      if (event_) event_->synchronize();
    } catch (const c10::Error& error) {
      failure_ = error.what_without_backtrace();
    } catch (const std::exception& error) {
      failure_ = error.what();
    }
  }
  void settle(napi_env env) override {
    void* data;
    napi_value buffer;
    if (failure_.empty()) {
      if (napi_create_arraybuffer(env, values_.nbytes(), &data, &buffer) == napi_ok) {
        if (values_.nbytes() > 0) std::memcpy(data, values_.const_data_ptr(), values_.nbytes());
        napi_resolve_deferred(env, deferred_, typedArrayOver(env, kind_, buffer, values_.numel()));
        return;
      }
      failure_ = "expected enough memory for the values, but none was left";
    }
    const std::string text = "toTypedArrayAsync: " + failure_;
    napi_value message, error;
    if (napi_create_string_utf8(env, text.c_str(), text.size(), &message) == napi_ok &&
        napi_create_error(env, nullptr, message, &error) == napi_ok) {
      napi_reject_deferred(env, deferred_, error);
    }
  }

 private:
  at::Tensor values_;
  ArrayKind kind_{};
  std::string failure_;
  std::optional<c10::Event> event_;
};

Napi::Value toTypedArrayAsync(Environment& environment, const Napi::CallbackInfo& info) {
  auto* worker = new ReadBack(info.Env(), tensorOf(environment, info[0], {"toTypedArrayAsync", "self"}));
  worker->Queue();
  return {info.Env(), worker->promise()};
}

Napi::Value item(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"item", "self"});
  if (tensor.numel() != 1) {
    rangeError("item: expected a tensor of one element, but received one of shape ", tensor.sizes(),
               "; use toArray() or toTypedArray()");
  }
  return {info.Env(), fromScalar(info.Env(), tensor.item())};
}

Napi::Array numbers(Napi::Env env, at::IntArrayRef values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (size_t k = 0; k < values.size(); ++k) array[k] = Napi::Number::New(env, static_cast<double>(values[k]));
  return array;
}

Napi::Value shape(Environment& environment, const Napi::CallbackInfo& info) {
  return numbers(info.Env(), tensorOf(environment, info[0], {"shape", "self"}).sizes());
}

Napi::Value strides(Environment& environment, const Napi::CallbackInfo& info) {
  return numbers(info.Env(), tensorOf(environment, info[0], {"stride", "self"}).strides());
}

Napi::Value storageOffset(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Number::New(
      info.Env(), static_cast<double>(tensorOf(environment, info[0], {"storageOffset", "self"}).storage_offset()));
}

Napi::Value dtype(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), dtypeName(tensorOf(environment, info[0], {"dtype", "self"}).scalar_type()));
}

Napi::Value device(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), tensorOf(environment, info[0], {"device", "self"}).device().str());
}

Napi::Value layout(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), layoutName(tensorOf(environment, info[0], {"layout", "self"}).layout()));
}

// traits(tensor): one number for dtype, layout and device, equal for tensors that one kernel can take together. A small
// integer: optimizers ask for every parameter at every step, and words would be garbage.
Napi::Value traits(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"traits", "self"});
  const auto dtype = static_cast<uint32_t>(tensor.scalar_type());
  const auto layout = static_cast<uint32_t>(tensor.layout());
  const auto type = static_cast<uint32_t>(tensor.device().type());
  const auto index = static_cast<uint32_t>(tensor.device().index() + 1);
  return Napi::Number::New(info.Env(), dtype | layout << 8 | type << 12 | index << 20);
}

// liesAs(a, b): whether both have the same sizes and strides
Napi::Value liesAs(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor a = tensorOf(environment, info[0], {"liesAs", "self"});
  const at::Tensor b = tensorOf(environment, info[1], {"liesAs", "other"});
  return Napi::Boolean::New(info.Env(), a.sizes() == b.sizes() && a.strides() == b.strides());
}

// isDense(tensor): whether its elements fill one block of memory, in whatever order of dimensions
Napi::Value isDense(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(),
                            tensorOf(environment, info[0], {"isDense", "self"}).is_non_overlapping_and_dense());
}

Napi::Value numberOfElements(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(tensorOf(environment, info[0], {"numel", "self"}).numel()));
}

Napi::Value dimensions(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(tensorOf(environment, info[0], {"dim", "self"}).dim()));
}

Napi::Value storageBytes(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"storageBytes", "self"});
  return Napi::Number::New(info.Env(), tensor.has_storage() ? static_cast<double>(tensor.storage().nbytes()) : 0);
}

// storageId(tensor): equal for tensors over the same memory
Napi::Value storageId(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"storageId", "self"});
  const void* id = tensor.has_storage() ? static_cast<const void*>(tensor.storage().unsafeGetStorageImpl())
                                        : static_cast<const void*>(tensor.unsafeGetTensorImpl());
  return Napi::BigInt::New(info.Env(), static_cast<uint64_t>(reinterpret_cast<uintptr_t>(id)));
}

Napi::Value isPinned(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), tensorOf(environment, info[0], {"isPinned", "self"}).is_pinned());
}

Napi::Value version(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), tensorOf(environment, info[0], {"version", "self"})._version());
}

Napi::Value isSame(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(
      info.Env(),
      tensorOf(environment, info[0], {"isSame", "self"}).is_same(tensorOf(environment, info[1], {"isSame", "other"})));
}

// Indices as TypeScript encodes them: a flat array of codes and their values.
std::vector<at::indexing::TensorIndex> indicesOf(Environment& environment, napi_value value, const char* operation) {
  Napi::Env env(environment.env);
  Napi::Array encoded(env, value);
  std::vector<at::indexing::TensorIndex> indices;
  const Place place{operation, "an index"};
  for (uint32_t k = 0; k < encoded.Length();) {
    const int64_t code = integerOf(env, encoded.Get(k++), place);
    switch (code) {
      case 0: indices.emplace_back(integerOf(env, encoded.Get(k++), place)); break;
      case 1: indices.emplace_back(std::nullopt); break;
      case 2: indices.emplace_back(at::indexing::Ellipsis); break;
      case 3: indices.emplace_back(booleanOf(env, encoded.Get(k++), place)); break;
      case 4: {
        std::optional<c10::SymInt> bounds[3];
        for (auto& bound : bounds) {
          Napi::Value given = encoded.Get(k++);
          if (!isNullish(env, given)) bound = c10::SymInt(integerOf(env, given, place));
        }
        if (bounds[2] && *bounds[2] <= 0) {
          rangeError(operation, ": expected the step of a slice to be greater than zero; use flip() to reverse");
        }
        indices.emplace_back(at::indexing::Slice(bounds[0], bounds[1], bounds[2]));
        break;
      }
      case 5: {
        const at::Tensor index = tensorOf(environment, encoded.Get(k++), place);
        if (!c10::isIntegralType(index.scalar_type(), /*includeBool=*/true)) {
          typeError(operation, ": expected an index tensor of whole numbers or booleans, but received ",
                    dtypeName(index.scalar_type()));
        }
        indices.emplace_back(index);
        break;
      }
      default: typeError(operation, ": there is no index of code ", code);
    }
  }
  return indices;
}

Napi::Value getIndex(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor self = tensorOf(environment, info[0], {"at", "self"});
  return {info.Env(), fromTensor(environment, at::indexing::get_item(self, indicesOf(environment, info[1], "at")))};
}

Napi::Value setIndex(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor self = tensorOf(environment, info[0], {"setAt", "self"});
  const auto indices = indicesOf(environment, info[1], "setAt");
  napi_value given = info[2];
  // A number is written in the tensor's own dtype, a tensor as it is.
  const bool isTensor = booleanOf(info.Env(), info[3], {"setAt", "isTensor"});
  const at::Tensor value =
      isTensor ? tensorOf(environment, given, {"setAt", "value"})
               : at::full({}, scalarOf(info.Env(), given, {"setAt", "value"}), self.options().requires_grad(false));
  at::indexing::set_item(self, indices, value);
  return info.Env().Undefined();
}

}  // namespace

void defineTensorData(Napi::Object exports, Environment& environment) {
  define<fromTypedArray>(exports, environment, "fromTypedArray", "tensor");
  define<toTypedArray>(exports, environment, "toTypedArray");
  define<toTypedArrayAsync>(exports, environment, "toTypedArrayAsync");
  define<item>(exports, environment, "item");
  define<shape>(exports, environment, "shape");
  define<strides>(exports, environment, "strides", "stride");
  define<storageOffset>(exports, environment, "storageOffset");
  define<dtype>(exports, environment, "dtype");
  define<device>(exports, environment, "device");
  define<layout>(exports, environment, "layout");
  define<traits>(exports, environment, "traits");
  define<liesAs>(exports, environment, "liesAs");
  define<isDense>(exports, environment, "isDense");
  define<numberOfElements>(exports, environment, "numberOfElements", "numel");
  define<dimensions>(exports, environment, "dimensions", "dim");
  define<storageBytes>(exports, environment, "storageBytes");
  define<storageId>(exports, environment, "storageId");
  define<isPinned>(exports, environment, "isPinned");
  define<version>(exports, environment, "version");
  define<isSame>(exports, environment, "isSame");
  define<getIndex>(exports, environment, "getIndex", "at");
  define<setIndex>(exports, environment, "setIndex", "setAt");
}

}  // namespace cleft
