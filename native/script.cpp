#include "script.hpp"

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include "convert.hpp"

namespace cleft {

namespace {

using torch::jit::Module;
const napi_type_tag kModuleTag = {0x77b1e0c94f5d4a38, 0x92f3c6a15d0e8b47};

Module& moduleOf(Napi::Env env, napi_value value, const char* operation) {
  bool ours = false;
  if (Napi::Value(env, value).IsExternal()) napi_check_object_type_tag(env, value, &kModuleTag, &ours);
  if (!ours) typeError(operation, ": expected a TorchScript module, but received ", describe(env, value));
  return *Napi::External<Module>(env, value).Data();
}

Napi::Value wrapModule(Napi::Env env, Module module) {
  auto external =
      Napi::External<Module>::New(env, new Module(std::move(module)), [](Napi::Env, Module* dying) { delete dying; });
  napi_type_tag_object(env, external, &kModuleTag);
  return external;
}

// A value as TypeScript encodes it for a script: {tensor: handle}, {integer: n}, {float: x}, {tuple: [...]}, {list:
// [...]}, {dictionary: [[key, value], ...]}, or a boolean, string or null.
c10::IValue scriptValue(Environment& environment, Napi::Value value, const c10::TypePtr& wanted, Place place) {
  Napi::Env env = value.Env();
  if (value.IsNull() || value.IsUndefined()) return c10::IValue();
  if (value.IsBoolean()) return value.As<Napi::Boolean>().Value();
  if (value.IsString()) return value.As<Napi::String>().Utf8Value();
  if (value.IsBigInt()) return integerOf(env, value, place);
  if (value.IsNumber()) {
    const double number = value.As<Napi::Number>().DoubleValue();
    const c10::TypePtr type = wanted && wanted->kind() == c10::TypeKind::OptionalType
                                  ? wanted->expectRef<c10::OptionalType>().getElementType()
                                  : wanted;
    if (type && type->kind() == c10::TypeKind::IntType) return integerOf(env, value, place);
    if (type && type->kind() == c10::TypeKind::FloatType) return number;
    return c10::IValue(scalarOf(env, value, place));
  }
  if (!value.IsObject())
    typeError(place.operation, ": expected ", place.argument, " to be a tensor or data, but received ",
              describe(env, value));
  Napi::Object object = value.As<Napi::Object>();
  if (object.Has("tensor")) return tensorOf(environment, object.Get("tensor"), place);
  if (object.Has("float")) return doubleOf(env, value, place);
  const auto elementType = [&](size_t index) -> c10::TypePtr {
    if (!wanted) return nullptr;
    if (wanted->kind() == c10::TypeKind::ListType) return wanted->expectRef<c10::ListType>().getElementType();
    if (wanted->kind() == c10::TypeKind::TupleType) {
      const auto& elements = wanted->expectRef<c10::TupleType>().elements();
      return index < elements.size() ? elements[index] : nullptr;
    }
    return nullptr;
  };
  if (object.Has("items")) {
    Napi::Array items = object.Get("items").As<Napi::Array>();
    std::vector<c10::IValue> values;
    for (uint32_t k = 0; k < items.Length(); ++k) {
      values.push_back(scriptValue(environment, items.Get(k), elementType(k), place));
    }
    if (wanted && wanted->kind() == c10::TypeKind::TupleType) return c10::ivalue::Tuple::create(std::move(values));
    c10::TypePtr type = elementType(0);
    if (!type) type = values.empty() ? c10::TypePtr(c10::TensorType::get()) : values[0].type();
    c10::impl::GenericList list(type);
    for (auto& item : values) list.push_back(std::move(item));
    return list;
  }
  if (object.Has("entries")) {
    Napi::Array entries = object.Get("entries").As<Napi::Array>();
    c10::TypePtr key = c10::StringType::get(), mapped = c10::TensorType::get();
    if (wanted && wanted->kind() == c10::TypeKind::DictType) {
      key = wanted->expectRef<c10::DictType>().getKeyType();
      mapped = wanted->expectRef<c10::DictType>().getValueType();
    }
    c10::impl::GenericDict dictionary(key, mapped);
    for (uint32_t k = 0; k < entries.Length(); ++k) {
      Napi::Array entry = entries.Get(k).As<Napi::Array>();
      dictionary.insert(scriptValue(environment, entry.Get(0u), key, place),
                        scriptValue(environment, entry.Get(1u), mapped, place));
    }
    return dictionary;
  }
  typeError(place.operation, ": expected ", place.argument, " to be a tensor or data, but received ",
            describe(env, value));
}

// Results as TypeScript decodes them: tensors as {tensor: handle}, dictionaries as {entries: [...]}.
napi_value fromScript(Environment& environment, const c10::IValue& value) {
  Napi::Env env(environment.env);
  if (value.isTensor()) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("tensor", Napi::Value(env, fromTensor(environment, value.toTensor())));
    return object;
  }
  if (value.isList() || value.isTuple()) {
    Napi::Array array = Napi::Array::New(env);
    const auto push = [&](const c10::IValue& item) {
      array[array.Length()] = Napi::Value(env, fromScript(environment, item));
    };
    if (value.isTuple()) {
      for (const auto& item : value.toTupleRef().elements()) push(item);
    } else {
      for (const c10::IValue& item : value.toListRef()) push(item);
    }
    return array;
  }
  if (value.isGenericDict()) {
    Napi::Array entries = Napi::Array::New(env);
    for (const auto& entry : value.toGenericDict()) {
      Napi::Array pair = Napi::Array::New(env, 2);
      pair[0u] = Napi::Value(env, fromScript(environment, entry.key()));
      pair[1u] = Napi::Value(env, fromScript(environment, entry.value()));
      entries[entries.Length()] = pair;
    }
    Napi::Object object = Napi::Object::New(env);
    object.Set("entries", entries);
    return object;
  }
  return fromIValue(environment, value);
}

// scriptLoad(path, device or null)
Napi::Value scriptLoad(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const std::string path = stringOf(env, info[0], {"jit.load", "path"});
  std::optional<c10::Device> device;
  if (!isNullish(env, info[1]))
    device = deviceOf(stringOf(env, info[1], {"jit.load", "device"}), {"jit.load", "device"});
  return wrapModule(env, torch::jit::load(path, device));
}

// scriptCall(module, method, arguments)
Napi::Value scriptCall(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Module& module = moduleOf(env, info[0], "forward");
  const std::string name = stringOf(env, info[1], {"forward", "method"});
  const auto method = module.find_method(name);
  if (!method) rangeError("jit: expected a method of this module, but it has no '", name, "'");
  const auto& wanted = method->function().getSchema().arguments();  // the module itself first
  Napi::Array given = info[2].As<Napi::Array>();
  std::vector<c10::IValue> values;
  for (uint32_t k = 0; k < given.Length(); ++k) {
    const bool known = k + 1 < wanted.size();
    const std::string argument = known ? wanted[k + 1].name() : "argument " + std::to_string(k);
    values.push_back(scriptValue(environment, given.Get(k), known ? wanted[k + 1].real_type() : nullptr,
                                 {name.c_str(), argument.c_str()}));
  }
  return {env, fromScript(environment, (*method)(std::move(values)))};
}

// scriptTensors(module, 'parameters' | 'buffers'): [[name, handle], ...]
Napi::Value scriptTensors(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Module& module = moduleOf(env, info[0], "namedParameters");
  Napi::Array result = Napi::Array::New(env);
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    Napi::Array pair = Napi::Array::New(env, 2);
    pair[0u] = Napi::String::New(env, name);
    pair[1u] = Napi::Value(env, fromTensor(environment, tensor));
    result[result.Length()] = pair;
  };
  if (stringOf(env, info[1], {"namedParameters", "kind"}) == "parameters") {
    for (const auto& entry : module.named_parameters()) add(entry.name, entry.value);
  } else {
    for (const auto& entry : module.named_buffers()) add(entry.name, entry.value);
  }
  return result;
}

Napi::Value scriptTrain(Environment&, const Napi::CallbackInfo& info) {
  moduleOf(info.Env(), info[0], "train").train(booleanOf(info.Env(), info[1], {"train", "mode"}));
  return info.Env().Undefined();
}

// scriptTo(module, device or null, dtype or null)
Napi::Value scriptTo(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Module& module = moduleOf(env, info[0], "to");
  if (!isNullish(env, info[1])) module.to(deviceOf(stringOf(env, info[1], {"to", "device"}), {"to", "device"}));
  if (!isNullish(env, info[2])) module.to(dtypeOf(stringOf(env, info[2], {"to", "dtype"}), {"to", "dtype"}));
  return env.Undefined();
}

Napi::Value scriptMethods(Environment&, const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env());
  for (const auto& method : moduleOf(info.Env(), info[0], "methods").get_methods()) {
    names[names.Length()] = Napi::String::New(info.Env(), method.name());
  }
  return names;
}

Napi::Value scriptSave(Environment&, const Napi::CallbackInfo& info) {
  moduleOf(info.Env(), info[0], "save").save(stringOf(info.Env(), info[1], {"save", "path"}));
  return info.Env().Undefined();
}

}  // namespace

void defineScript(Napi::Object exports, Environment& environment) {
  define<scriptLoad>(exports, environment, "scriptLoad", "jit.load");
  define<scriptCall>(exports, environment, "scriptCall", "ScriptModule.call");
  define<scriptTensors>(exports, environment, "scriptTensors", "ScriptModule.parameters");
  define<scriptTrain>(exports, environment, "scriptTrain", "ScriptModule.train");
  define<scriptTo>(exports, environment, "scriptTo", "ScriptModule.to");
  define<scriptMethods>(exports, environment, "scriptMethods", "ScriptModule.methods");
  define<scriptSave>(exports, environment, "scriptSave", "ScriptModule.save");
}

}  // namespace cleft
