#include "convert.hpp"

#include <c10/core/ScalarTypeToTypeMeta.h>

#include <array>
#include <cmath>
#include <limits>

namespace cleft {

namespace {

constexpr double kLargestSafeInteger = 9007199254740991.0;

struct NamedDtype {
  const char* name;
  at::ScalarType dtype;
};
constexpr std::array<NamedDtype, 22> kDtypes{{
    {"float32", at::kFloat},
    {"float64", at::kDouble},
    {"float16", at::kHalf},
    {"bfloat16", at::kBFloat16},
    {"int64", at::kLong},
    {"int32", at::kInt},
    {"int16", at::kShort},
    {"int8", at::kChar},
    {"uint8", at::kByte},
    {"uint16", at::kUInt16},
    {"uint32", at::kUInt32},
    {"uint64", at::kUInt64},
    {"bool", at::kBool},
    {"complex64", at::kComplexFloat},
    {"complex128", at::kComplexDouble},
    {"complex32", at::kComplexHalf},
    {"float8_e4m3fn", at::kFloat8_e4m3fn},
    {"float8_e5m2", at::kFloat8_e5m2},
    {"float8_e4m3fnuz", at::kFloat8_e4m3fnuz},
    {"float8_e5m2fnuz", at::kFloat8_e5m2fnuz},
    {"qint8", at::kQInt8},
    {"quint8", at::kQUInt8},
}};

napi_valuetype typeOf(napi_env env, napi_value value) {
  napi_valuetype type;
  napi_typeof(env, value, &type);
  return type;
}

[[noreturn]] void wrongKind(napi_env env, napi_value value, Place place, const char* expected) {
  typeError(place.operation, ": expected ", place.argument, " to be ", expected, ", but received ",
            describe(env, value));
}

size_t lengthOfArray(napi_env env, napi_value value, Place place, const char* expected) {
  bool isArray = false;
  napi_is_array(env, value, &isArray);
  if (!isArray) wrongKind(env, value, place, expected);
  uint32_t length = 0;
  napi_get_array_length(env, value, &length);
  return length;
}

napi_value element(napi_env env, napi_value array, size_t index) {
  napi_value value;
  if (napi_get_element(env, array, static_cast<uint32_t>(index), &value) != napi_ok) throw Napi::Error::New(env);
  return value;
}

std::optional<double> numberProperty(napi_env env, napi_value object, const char* name) {
  napi_value property;
  if (napi_get_named_property(env, object, name, &property) != napi_ok) throw Napi::Error::New(env);
  double number;
  if (napi_get_value_double(env, property, &number) != napi_ok) return std::nullopt;
  return number;
}

at::Layout layoutOf(const std::string& name, Place place) {
  if (name == "strided") return at::kStrided;
  if (name == "sparse_coo") return at::kSparse;
  if (name == "sparse_csr") return at::kSparseCsr;
  if (name == "sparse_csc") return at::kSparseCsc;
  if (name == "sparse_bsr") return at::kSparseBsr;
  if (name == "sparse_bsc") return at::kSparseBsc;
  if (name == "jagged") return at::kJagged;
  rangeError(place.operation, ": expected ", place.argument,
             " to be a layout (strided, sparse_coo, sparse_csr, sparse_csc, sparse_bsr, sparse_bsc), but received '",
             name, "'");
}

at::MemoryFormat memoryFormatOf(const std::string& name, Place place) {
  if (name == "contiguous_format") return at::MemoryFormat::Contiguous;
  if (name == "preserve_format") return at::MemoryFormat::Preserve;
  if (name == "channels_last") return at::MemoryFormat::ChannelsLast;
  if (name == "channels_last_3d") return at::MemoryFormat::ChannelsLast3d;
  rangeError(
      place.operation, ": expected ", place.argument,
      " to be a memory format (contiguous_format, preserve_format, channels_last, channels_last_3d), but received '",
      name, "'");
}

c10::complex<double> complexOf(napi_env env, napi_value value, Place place) {
  if (typeOf(env, value) == napi_object) {
    const auto real = numberProperty(env, value, "re");
    const auto imaginary = numberProperty(env, value, "im");
    if (real && imaginary) return {*real, *imaginary};
  }
  return {doubleOf(env, value, place), 0};
}

// Whether a number is of a whole value that int64 holds exactly.
bool isWhole(double number) { return std::abs(number) <= kLargestSafeInteger && std::trunc(number) == number; }

c10::IValue single(Environment& environment, napi_value value, const Argument& argument, Place place) {
  napi_env env = environment.env;
  switch (argument.kind) {
    case Kind::Tensor: return tensorOf(environment, value, place);
    case Kind::Integer: return integerOf(env, value, place);
    case Kind::Float: return doubleOf(env, value, place);
    case Kind::Boolean: return booleanOf(env, value, place);
    case Kind::Scalar: return scalarOf(env, value, place);
    case Kind::String: return stringOf(env, value, place);
    case Kind::Dtype: return dtypeOf(stringOf(env, value, place), place);
    case Kind::Layout: return layoutOf(stringOf(env, value, place), place);
    case Kind::MemoryFormat: return memoryFormatOf(stringOf(env, value, place), place);
    case Kind::Device: return deviceOf(stringOf(env, value, place), place);
    case Kind::Generator: return generatorOf(env, value, place);
    case Kind::Complex: return complexOf(env, value, place);
    default: break;
  }
  typeError(place.operation, ": the argument ", place.argument, " is of a kind that cannot be given from JavaScript");
}

template <typename T, typename Convert>
c10::IValue listOf(napi_env env, napi_value value, Place place, const char* expected, Convert convert) {
  const size_t length = lengthOfArray(env, value, place, expected);
  c10::List<T> list;
  list.reserve(length);
  for (size_t k = 0; k < length; ++k) list.push_back(convert(element(env, value, k)));
  return list;
}

c10::IValue listArgument(Environment& environment, napi_value value, const Argument& argument, Place place) {
  napi_env env = environment.env;
  switch (argument.kind) {
    case Kind::Tensor:
      if (argument.optionalElements) {
        return listOf<std::optional<at::Tensor>>(env, value, place, "an array of tensors and nulls",
                                                 [&](napi_value item) -> std::optional<at::Tensor> {
                                                   if (isNullish(env, item)) return std::nullopt;
                                                   return tensorOf(environment, item, place);
                                                 });
      }
      return listOf<at::Tensor>(env, value, place, "an array of tensors",
                                [&](napi_value item) { return tensorOf(environment, item, place); });
    case Kind::Integer:
      if (argument.listSize > 0 && typeOf(env, value) != napi_object) {
        // int[2] takes one number for both, as PyTorch does
        return c10::List<int64_t>(
            std::vector<int64_t>(static_cast<size_t>(argument.listSize), integerOf(env, value, place)));
      }
      return listOf<int64_t>(env, value, place, "an array of whole numbers",
                             [&](napi_value item) { return integerOf(env, item, place); });
    case Kind::Float:
      if (argument.listSize > 0 && typeOf(env, value) == napi_number) {
        return c10::List<double>(
            std::vector<double>(static_cast<size_t>(argument.listSize), doubleOf(env, value, place)));
      }
      return listOf<double>(env, value, place, "an array of numbers",
                            [&](napi_value item) { return doubleOf(env, item, place); });
    case Kind::Boolean:
      return listOf<bool>(env, value, place, "an array of booleans",
                          [&](napi_value item) { return booleanOf(env, item, place); });
    case Kind::Scalar: {
      const size_t length = lengthOfArray(env, value, place, "an array of numbers");
      c10::impl::GenericList list(c10::NumberType::get());
      for (size_t k = 0; k < length; ++k) list.push_back(scalarOf(env, element(env, value, k), place));
      return list;
    }
    case Kind::String:
      return listOf<std::string>(env, value, place, "an array of strings",
                                 [&](napi_value item) { return stringOf(env, item, place); });
    default: break;
  }
  typeError(place.operation, ": the argument ", place.argument, " is of a kind that cannot be given from JavaScript");
}

napi_value arrayFrom(napi_env env, const std::vector<napi_value>& values) {
  napi_value array;
  napi_create_array_with_length(env, values.size(), &array);
  for (size_t k = 0; k < values.size(); ++k) napi_set_element(env, array, static_cast<uint32_t>(k), values[k]);
  return array;
}

}  // namespace

const char* kindName(Kind kind) {
  static constexpr const char* kNames[] = {"Tensor",    "int",     "float",   "bool",          "Scalar",
                                           "str",       "dtype",   "layout",  "memory_format", "Device",
                                           "Generator", "complex", "Storage", "Stream",        "unsupported"};
  return kNames[static_cast<size_t>(kind)];
}

at::ScalarType dtypeOf(const std::string& name, Place place) {
  for (const auto& known : kDtypes) {
    if (name == known.name) return known.dtype;
  }
  rangeError(place.operation, ": expected ", place.argument,
             " to be a dtype (float32, float64, float16, bfloat16, int64, int32, int16, int8, uint8, uint16, uint32, "
             "uint64, bool, complex64, complex128), but received '",
             name, "'");
}

const char* dtypeName(at::ScalarType dtype) {
  for (const auto& known : kDtypes) {
    if (dtype == known.dtype) return known.name;
  }
  return c10::toString(dtype);
}

const char* layoutName(at::Layout layout) {
  switch (layout) {
    case at::kStrided: return "strided";
    case at::kSparse: return "sparse_coo";
    case at::kSparseCsr: return "sparse_csr";
    case at::kSparseCsc: return "sparse_csc";
    case at::kSparseBsr: return "sparse_bsr";
    case at::kSparseBsc: return "sparse_bsc";
    case at::kJagged: return "jagged";
    default: return "mkldnn";
  }
}

c10::Device deviceOf(const std::string& name, Place place) {
  try {
    return c10::Device(name);
  } catch (const c10::Error&) {
    rangeError(place.operation, ": expected ", place.argument,
               " to be a device ('cpu', 'cuda', 'cuda:1', 'mps', 'meta'), but received '", name, "'");
  }
}

bool isNullish(napi_env env, napi_value value) {
  const napi_valuetype type = typeOf(env, value);
  return type == napi_undefined || type == napi_null;
}

std::string describe(napi_env env, napi_value value) {
  switch (typeOf(env, value)) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: {
      bool boolean;
      napi_get_value_bool(env, value, &boolean);
      return boolean ? "true" : "false";
    }
    case napi_number: {
      double number;
      napi_get_value_double(env, value, &number);
      return Napi::Value(env, value).ToString().Utf8Value();
    }
    case napi_bigint: return Napi::Value(env, value).ToString().Utf8Value() + "n";
    case napi_string: {
      std::string text = Napi::Value(env, value).As<Napi::String>().Utf8Value();
      if (text.size() > 60) text = text.substr(0, 57) + "...";
      return "the string '" + text + "'";
    }
    case napi_symbol: return "a symbol";
    case napi_function: return "a function";
    case napi_external: return "an external value";
    case napi_object: {
      bool isArray = false;
      napi_is_array(env, value, &isArray);
      return isArray ? "an array" : "an object";
    }
  }
  return "an unknown value";
}

std::string stringOf(napi_env env, napi_value value, Place place) {
  char buffer[64];
  size_t length;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) wrongKind(env, value, place, "a string");
  if (length < sizeof(buffer)) {
    napi_get_value_string_utf8(env, value, buffer, sizeof(buffer), &length);
    return std::string(buffer, length);
  }
  std::string text(length, '\0');
  napi_get_value_string_utf8(env, value, text.data(), length + 1, &length);
  return text;
}

int64_t integerOf(napi_env env, napi_value value, Place place) {
  double number;
  if (napi_get_value_double(env, value, &number) == napi_ok) {
    if (isWhole(number)) return static_cast<int64_t>(number);
    rangeError(place.operation, ": expected ", place.argument, " to be a safe whole number, but received ",
               describe(env, value));
  }
  int64_t integer;
  bool lossless;
  if (napi_get_value_bigint_int64(env, value, &integer, &lossless) == napi_ok) {
    if (lossless) return integer;
    rangeError(place.operation, ": expected ", place.argument, " to fit 64 bits, but received ", describe(env, value));
  }
  wrongKind(env, value, place, "a whole number");
}

double doubleOf(napi_env env, napi_value value, Place place) {
  double number;
  if (napi_get_value_double(env, value, &number) == napi_ok) return number;
  if (typeOf(env, value) == napi_object) {
    if (const auto explicitFloat = numberProperty(env, value, "float")) return *explicitFloat;
  }
  if (typeOf(env, value) == napi_bigint) return static_cast<double>(integerOf(env, value, place));
  wrongKind(env, value, place, "a number");
}

bool booleanOf(napi_env env, napi_value value, Place place) {
  bool boolean;
  if (napi_get_value_bool(env, value, &boolean) != napi_ok) wrongKind(env, value, place, "a boolean");
  return boolean;
}

at::Scalar scalarOf(napi_env env, napi_value value, Place place) {
  double number;
  if (napi_get_value_double(env, value, &number) == napi_ok) {
    if (isWhole(number)) return static_cast<int64_t>(number);
    return number;
  }
  switch (typeOf(env, value)) {
    case napi_bigint: return integerOf(env, value, place);
    case napi_boolean: return booleanOf(env, value, place);
    case napi_object:
      if (const auto explicitFloat = numberProperty(env, value, "float")) return *explicitFloat;
      if (const auto real = numberProperty(env, value, "re")) return complexOf(env, value, place);
      [[fallthrough]];
    default: wrongKind(env, value, place, "a number, a bigint, a boolean, torch.float(x) or {re, im}");
  }
}

at::Tensor tensorOf(Environment& environment, napi_value value, Place place) {
  double handle;
  if (napi_get_value_double(environment.env, value, &handle) != napi_ok) {
    wrongKind(environment.env, value, place, "a Tensor");
  }
  const at::Tensor* tensor = environment.tensors.find(handle);
  if (tensor == nullptr) {
    typeError(place.operation, ": expected ", place.argument,
              " to be a live Tensor, but received one that was disposed of (by its scope, dispose() or using) or that "
              "belongs to another worker");
  }
  return *tensor;
}

std::vector<at::Tensor> tensorsOf(Environment& environment, napi_value value, Place place) {
  const size_t length = lengthOfArray(environment.env, value, place, "an array of tensors");
  std::vector<at::Tensor> tensors;
  tensors.reserve(length);
  for (size_t k = 0; k < length; ++k) {
    napi_value item = element(environment.env, value, k);
    tensors.push_back(isNullish(environment.env, item) ? at::Tensor() : tensorOf(environment, item, place));
  }
  return tensors;
}

std::vector<int64_t> integersOf(napi_env env, napi_value value, Place place) {
  const size_t length = lengthOfArray(env, value, place, "an array of whole numbers");
  std::vector<int64_t> integers(length);
  for (size_t k = 0; k < length; ++k) integers[k] = integerOf(env, element(env, value, k), place);
  return integers;
}

std::vector<double> handlesOf(napi_env env, napi_value value, Place place) {
  if (isNullish(env, value)) return {};
  const size_t length = lengthOfArray(env, value, place, "an array of handles");
  std::vector<double> handles(length);
  for (size_t k = 0; k < length; ++k) handles[k] = doubleOf(env, element(env, value, k), place);
  return handles;
}

c10::IValue toIValue(Environment& environment, napi_value value, const Argument& argument, const char* operation) {
  const Place place{operation, argument.name.c_str()};
  if (isNullish(environment.env, value)) {
    if (argument.hasDefault && typeOf(environment.env, value) == napi_undefined) return argument.defaultValue;
    if (argument.optional) return c10::IValue();
    if (argument.hasDefault) return argument.defaultValue;
    wrongKind(environment.env, value, place, argument.list ? "an array" : kindName(argument.kind));
  }
  return argument.list ? listArgument(environment, value, argument, place)
                       : single(environment, value, argument, place);
}

napi_value fromTensor(Environment& environment, at::Tensor tensor) {
  napi_value value;
  if (!tensor.defined()) {
    napi_get_null(environment.env, &value);
  } else {
    napi_create_double(environment.env, environment.tensors.add(std::move(tensor)), &value);
  }
  return value;
}

napi_value fromInteger(napi_env env, int64_t integer) {
  napi_value value;
  if (std::abs(static_cast<double>(integer)) <= kLargestSafeInteger) {
    napi_create_double(env, static_cast<double>(integer), &value);
  } else {
    napi_create_bigint_int64(env, integer, &value);
  }
  return value;
}

napi_value fromScalar(napi_env env, const at::Scalar& scalar) {
  napi_value value;
  if (scalar.isBoolean()) {
    napi_get_boolean(env, scalar.toBool(), &value);
  } else if (scalar.isIntegral(false)) {
    if (scalar.type() == at::kUInt64 &&
        scalar.toUInt64() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      napi_create_bigint_uint64(env, scalar.toUInt64(), &value);
    } else {
      return fromInteger(env, scalar.toLong());
    }
  } else if (scalar.isComplex()) {
    const auto complex = scalar.toComplexDouble();
    Napi::Object object = Napi::Object::New(env);
    object.Set("re", complex.real());
    object.Set("im", complex.imag());
    value = object;
  } else {
    napi_create_double(env, scalar.toDouble(), &value);
  }
  return value;
}

napi_value fromIValue(Environment& environment, const c10::IValue& value) {
  napi_env env = environment.env;
  napi_value result;
  if (value.isTensor()) return fromTensor(environment, value.toTensor());
  if (value.isNone()) {
    napi_get_null(env, &result);
    return result;
  }
  if (value.isBool()) {
    napi_get_boolean(env, value.toBool(), &result);
    return result;
  }
  if (value.isInt()) return fromInteger(env, value.toInt());
  if (value.isDouble()) {
    napi_create_double(env, value.toDouble(), &result);
    return result;
  }
  if (value.isScalar()) return fromScalar(env, value.toScalar());
  if (value.isString()) return Napi::String::New(env, value.toStringRef());
  if (value.isDevice()) return Napi::String::New(env, value.toDevice().str());
  if (value.isGenerator()) return fromGenerator(env, value.toGenerator());
  if (value.isList()) {
    std::vector<napi_value> items;
    for (const c10::IValue& item : value.toListRef()) items.push_back(fromIValue(environment, item));
    return arrayFrom(env, items);
  }
  if (value.isTuple()) {
    std::vector<napi_value> items;
    for (const c10::IValue& item : value.toTupleRef().elements()) items.push_back(fromIValue(environment, item));
    return arrayFrom(env, items);
  }
  typeError("expected a result that JavaScript can hold, but libtorch returned a ", value.tagKind());
}

const napi_type_tag kGeneratorTag = {0x6b1c9f0f2d3b4a51, 0x9d2e6f0a7b8c4d13};

at::Generator generatorOf(napi_env env, napi_value value, Place place) {
  bool ours = false;
  if (typeOf(env, value) == napi_external) napi_check_object_type_tag(env, value, &kGeneratorTag, &ours);
  if (!ours) wrongKind(env, value, place, "a Generator");
  return *Napi::External<at::Generator>(env, value).Data();
}

napi_value fromGenerator(napi_env env, const at::Generator& generator) {
  auto external = Napi::External<at::Generator>::New(env, new at::Generator(generator),
                                                     [](Napi::Env, at::Generator* held) { delete held; });
  napi_type_tag_object(env, external, &kGeneratorTag);
  return external;
}

}  // namespace cleft
