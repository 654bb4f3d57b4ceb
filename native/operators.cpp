#include "operators.hpp"

#include <ATen/core/jit_type.h>

#include "devices.hpp"

namespace cleft {

namespace {

constexpr size_t kMostArguments = 40;
constexpr size_t kFewArguments = 5;

Kind kindOf(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType: return Kind::Tensor;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType: return Kind::Integer;
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType: return Kind::Float;
    case c10::TypeKind::BoolType:
    case c10::TypeKind::SymBoolType: return Kind::Boolean;
    case c10::TypeKind::NumberType: return Kind::Scalar;
    case c10::TypeKind::StringType: return Kind::String;
    case c10::TypeKind::ScalarTypeType: return Kind::Dtype;
    case c10::TypeKind::LayoutType: return Kind::Layout;
    case c10::TypeKind::MemoryFormatType: return Kind::MemoryFormat;
    case c10::TypeKind::DeviceObjType: return Kind::Device;
    case c10::TypeKind::GeneratorType: return Kind::Generator;
    case c10::TypeKind::ComplexType: return Kind::Complex;
    case c10::TypeKind::StorageType: return Kind::Storage;
    case c10::TypeKind::StreamObjType: return Kind::Stream;
    default: return Kind::Unsupported;
  }
}

Argument argumentFrom(const c10::Argument& schema) {
  Argument argument;
  argument.name = schema.name();
  argument.optional = argument.list = argument.optionalElements = false;
  argument.listSize = schema.N().value_or(0);
  argument.keywordOnly = schema.kwarg_only();
  argument.hasDefault = schema.default_value().has_value();
  if (argument.hasDefault) argument.defaultValue = *schema.default_value();
  c10::TypePtr type = schema.real_type();
  if (type->kind() == c10::TypeKind::OptionalType) {
    argument.optional = true;
    type = type->expectRef<c10::OptionalType>().getElementType();
  }
  if (type->kind() == c10::TypeKind::ListType) {
    argument.list = true;
    type = type->expectRef<c10::ListType>().getElementType();
    if (type->kind() == c10::TypeKind::OptionalType) {
      argument.optionalElements = true;
      type = type->expectRef<c10::OptionalType>().getElementType();
    }
  }
  argument.kind = kindOf(*type);
  return argument;
}

// Puts the arguments on the stack, by the operator's schema.
void pushArguments(Environment& environment, const Operator& operation, const napi_value* values, size_t given) {
  napi_env env = environment.env;
  auto& stack = environment.stack;
  const char* name = operation.name.c_str();
  const size_t wanted = operation.arguments.size();
  if (given > wanted) typeError(name, ": expected at most ", wanted, " arguments, but received ", given);
  for (size_t k = 0; k < given; ++k) {
    const Argument& argument = operation.arguments[k];
    double handle;
    if (argument.kind == Kind::Tensor && !argument.list && napi_get_value_double(env, values[k], &handle) == napi_ok) {
      if (const at::Tensor* tensor = environment.tensors.find(handle)) {
        stack.emplace_back(*tensor);
        continue;
      }
    }
    stack.push_back(toIValue(environment, values[k], argument, name));
  }
  for (size_t k = given; k < wanted; ++k) {
    const Argument& argument = operation.arguments[k];
    if (argument.hasDefault) {
      stack.push_back(argument.defaultValue);
    } else if (argument.optional) {
      stack.emplace_back();
    } else {
      typeError(name, ": expected the argument ", argument.name, ", but it is missing");
    }
  }
}

// Takes the results off the stack. Undefined where the caller has the object already (in-place operators).
napi_value popResults(Environment& environment, const Operator& operation, size_t base) {
  auto& stack = environment.stack;
  napi_value result = nullptr;
  const size_t outputs = stack.size() - base;
  if (operation.returnsSelf || outputs == 0) {
    // nothing to give back
  } else if (outputs == 1) {
    c10::IValue& value = stack.back();
    result = value.isTensor() ? fromTensor(environment, std::move(value).toTensor()) : fromIValue(environment, value);
  } else {
    napi_create_array_with_length(environment.env, outputs, &result);
    for (size_t k = 0; k < outputs; ++k) {
      napi_set_element(environment.env, result, static_cast<uint32_t>(k), fromIValue(environment, stack[base + k]));
    }
  }
  stack.resize(base);
  return result;
}

// call(id, ...arguments): the one way in for every operator. Written against the plain C interface, since this is the
// path that the speed of everything depends on.
napi_value call(napi_env env, napi_callback_info info) {
  napi_value values[kMostArguments + 1];
  void* data;
  // Node fills the places that no argument takes: asking for few first is faster.
  size_t count = kFewArguments;
  napi_get_cb_info(env, info, &count, values, nullptr, &data);
  if (count > kFewArguments) {
    count = kMostArguments + 1;
    napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  }
  auto& environment = *static_cast<Environment*>(data);
  const size_t base = environment.stack.size();
  const char* name = "call";
  try {
    if (environment.hasDeadCallbacks()) environment.dropDeadCallbacks();
    uint32_t id;
    if (count == 0 || napi_get_value_uint32(env, values[0], &id) != napi_ok || id >= environment.operators.size()) {
      typeError("call: expected the id of an operator that was looked up");
    }
    const Operator& operation = *environment.operators[id];
    name = operation.name.c_str();
    const size_t given = std::min(count - 1, kMostArguments);
    pushArguments(environment, operation, values + 1, given);
    try {
      operation.handle.callBoxed(environment.stack);
    } catch (const c10::OutOfMemoryError&) {
      // What the caching allocator holds for reuse may be what is missing: give it back, and try once more.
      environment.stack.resize(base);
      releaseCachedMemory();
      pushArguments(environment, operation, values + 1, given);
      operation.handle.callBoxed(environment.stack);
    }
    return popResults(environment, operation, base);
  } catch (const Napi::Error& error) {
    environment.stack.resize(base);
    error.ThrowAsJavaScriptException();
  } catch (...) {
    environment.stack.resize(base);
    throwAsJavaScript(environment, name);
  }
  return nullptr;
}

const char* returnKind(const Operator& operation) {
  const auto& returns = operation.handle.schema().returns();
  if (operation.returnsSelf) return "self";
  if (returns.size() == 1) {
    const auto& type = *returns[0].real_type();
    if (type.kind() == c10::TypeKind::TensorType) return "tensor";
    if (type.kind() == c10::TypeKind::ListType &&
        type.expectRef<c10::ListType>().getElementType()->kind() == c10::TypeKind::TensorType) {
      return "tensors";
    }
    return "value";
  }
  return returns.empty() ? "nothing" : "several";
}

// lookup(name, overload): {id, arguments, returns, returnNames} or null where this libtorch has no such overload.
Napi::Value lookup(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const std::string name = stringOf(env, info[0], {"lookup", "name"});
  const std::string overload = stringOf(env, info[1], {"lookup", "overload"});
  const auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
  if (!handle) return env.Null();
  auto operation = std::make_unique<Operator>(*handle);
  if (operation->arguments.size() > kMostArguments) return env.Null();
  Napi::Array arguments = Napi::Array::New(env);
  for (const Argument& argument : operation->arguments) {
    Napi::Object description = Napi::Object::New(env);
    description.Set("name", argument.name);
    description.Set("kind", kindName(argument.kind));
    description.Set("optional", argument.optional);
    description.Set("list", argument.list);
    description.Set("optionalElements", argument.optionalElements);
    description.Set("listSize", argument.listSize);
    description.Set("keywordOnly", argument.keywordOnly);
    description.Set("hasDefault", argument.hasDefault);
    arguments[arguments.Length()] = description;
  }
  Napi::Array returnKinds = Napi::Array::New(env), returnNames = Napi::Array::New(env);
  for (const c10::Argument& output : operation->handle.schema().returns()) {
    const auto& type = *output.real_type();
    const bool isTensor = type.kind() == c10::TypeKind::TensorType;
    const bool isTensors = type.kind() == c10::TypeKind::ListType &&
                           type.expectRef<c10::ListType>().getElementType()->kind() == c10::TypeKind::TensorType;
    returnKinds[returnKinds.Length()] = Napi::String::New(env, isTensor ? "tensor" : isTensors ? "tensors" : "value");
    returnNames[returnNames.Length()] = Napi::String::New(env, output.name());
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("id", static_cast<double>(environment.operators.size()));
  result.Set("arguments", arguments);
  result.Set("returns", returnKind(*operation));
  result.Set("returnKinds", returnKinds);
  result.Set("returnNames", returnNames);
  environment.operators.push_back(std::move(operation));
  return result;
}

// schemas(): the text of every schema of the loaded library, for the generator.
Napi::Value schemas(Environment&, const Napi::CallbackInfo& info) {
  Napi::Array all = Napi::Array::New(info.Env());
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    const auto handle = c10::Dispatcher::singleton().findSchema(name);
    if (handle) all[all.Length()] = Napi::String::New(info.Env(), c10::toString(handle->schema()));
  }
  return all;
}

}  // namespace

Operator::Operator(c10::OperatorHandle handle) : handle(handle), name(handle.schema().name()) {
  if (name.rfind("aten::", 0) == 0) name = name.substr(6);
  const auto& schema = handle.schema();
  for (const c10::Argument& argument : schema.arguments()) arguments.push_back(argumentFrom(argument));
  const auto* inputAlias = schema.arguments().empty() ? nullptr : schema.arguments()[0].alias_info();
  const auto* outputAlias = schema.returns().size() == 1 ? schema.returns()[0].alias_info() : nullptr;
  returnsSelf = inputAlias != nullptr && outputAlias != nullptr && inputAlias->isWrite() && outputAlias->isWrite() &&
                arguments[0].kind == Kind::Tensor && !arguments[0].list &&
                inputAlias->beforeSets() == outputAlias->beforeSets();
}

void defineOperators(Napi::Object exports, Environment& environment) {
  napi_value function;
  napi_create_function(exports.Env(), "call", NAPI_AUTO_LENGTH, call, &environment, &function);
  exports.Set("call", Napi::Value(exports.Env(), function));
  define<lookup>(exports, environment, "lookup");
  define<schemas>(exports, environment, "schemas");
}

}  // namespace cleft
