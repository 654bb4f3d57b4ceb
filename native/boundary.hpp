// The boundary between C++ and JavaScript: every exported function is wrapped so that no C++ exception passes it.
#pragma once

#include "environment.hpp"

namespace cleft {

// A wrong argument, to be thrown as JavaScript's TypeError or RangeError.
struct ArgumentError : std::exception {
  enum class Kind { Type, Range };
  ArgumentError(Kind kind, std::string message) : kind(kind), message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }
  Kind kind;
  std::string message;
};

template <typename... Parts>
[[noreturn]] void typeError(const Parts&... parts) {
  throw ArgumentError(ArgumentError::Kind::Type, c10::str(parts...));
}
template <typename... Parts>
[[noreturn]] void rangeError(const Parts&... parts) {
  throw ArgumentError(ArgumentError::Kind::Range, c10::str(parts...));
}

// To be called inside a catch block: turns what was thrown into a pending JavaScript exception.
void throwAsJavaScript(Environment& environment, const char* operation);

using Handler = Napi::Value (*)(Environment& environment, const Napi::CallbackInfo& info);

// What an exported function needs to know: its environment, and its name in errors.
struct Binding {
  Environment* environment;
  const char* name;
};

template <Handler handler>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  const Binding& binding = *static_cast<Binding*>(info.Data());
  Environment& environment = *binding.environment;
  environment.dropDeadCallbacks();
  const size_t base = environment.stack.size();
  try {
    return handler(environment, info);
  } catch (const Napi::Error&) {
    environment.stack.resize(base);
    throw;
  } catch (...) {
    environment.stack.resize(base);
    throwAsJavaScript(environment, binding.name);
    return Napi::Value();
  }
}

// Exports a function. `publicName` is what TypeScript's users call it, where that is another word; empty where its
// errors say that themselves.
template <Handler handler>
void define(Napi::Object exports, Environment& environment, const char* name, const char* publicName = nullptr) {
  auto& binding = environment.bindings.emplace_back(
      std::make_unique<Binding>(Binding{&environment, publicName == nullptr ? name : publicName}));
  exports.Set(name, Napi::Function::New<guarded<handler>>(exports.Env(), name, binding.get()));
}

}  // namespace cleft
