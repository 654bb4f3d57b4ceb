// Values across the boundary. Tensors travel as integer handles; dtypes, layouts, memory formats and devices as
// PyTorch's own words ('float32', 'strided', 'channels_last', 'cuda:0').
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/ivalue.h>

#include "boundary.hpp"

namespace cleft {

enum class Kind : uint8_t {
  Tensor,
  Integer,
  Float,
  Boolean,
  Scalar,
  String,
  Dtype,
  Layout,
  MemoryFormat,
  Device,
  Generator,
  Complex,
  Storage,
  Stream,
  Unsupported,
};
const char* kindName(Kind kind);

struct Argument {
  std::string name;
  Kind kind;
  bool optional;          // the value may be None
  bool list;              // a list of `kind`
  bool optionalElements;  // Tensor?[]
  int32_t listSize;       // int[2] also takes one number; 0 where it does not
  bool keywordOnly;
  bool hasDefault;
  c10::IValue defaultValue;
};

// Where a value stands, for the words of an error.
struct Place {
  const char* operation;
  const char* argument;
};

at::ScalarType dtypeOf(const std::string& name, Place place);
const char* dtypeName(at::ScalarType dtype);
const char* layoutName(at::Layout layout);
c10::Device deviceOf(const std::string& name, Place place);

std::string stringOf(napi_env env, napi_value value, Place place);
int64_t integerOf(napi_env env, napi_value value, Place place);
double doubleOf(napi_env env, napi_value value, Place place);
bool booleanOf(napi_env env, napi_value value, Place place);
at::Scalar scalarOf(napi_env env, napi_value value, Place place);
at::Tensor tensorOf(Environment& environment, napi_value value, Place place);
std::vector<at::Tensor> tensorsOf(Environment& environment, napi_value value, Place place);
std::vector<int64_t> integersOf(napi_env env, napi_value value, Place place);
std::vector<double> handlesOf(napi_env env, napi_value value, Place place);
bool isNullish(napi_env env, napi_value value);
// "a string ('x')", "3.5", "null": what came, for the words of an error.
std::string describe(napi_env env, napi_value value);

c10::IValue toIValue(Environment& environment, napi_value value, const Argument& argument, const char* operation);
napi_value fromIValue(Environment& environment, const c10::IValue& value);
napi_value fromTensor(Environment& environment, at::Tensor tensor);  // null for an undefined tensor
napi_value fromScalar(napi_env env, const at::Scalar& scalar);
napi_value fromInteger(napi_env env, int64_t value);  // a number, or a bigint where a number is not exact

extern const napi_type_tag kGeneratorTag;
at::Generator generatorOf(napi_env env, napi_value value, Place place);
napi_value fromGenerator(napi_env env, const at::Generator& generator);

}  // namespace cleft
