#include "boundary.hpp"

#include <c10/util/Exception.h>

#include <new>

namespace cleft {

namespace {

void throwTorchError(Environment& environment, const char* operation, const std::string& message) {
  napi_env env = environment.env;
  const std::string text =
      operation == nullptr || *operation == '\0' ? message : std::string(operation) + ": " + message;
  napi_value string, constructor, error;
  napi_create_string_utf8(env, text.c_str(), text.size(), &string);
  if (environment.errorConstructor != nullptr &&
      napi_get_reference_value(env, environment.errorConstructor, &constructor) == napi_ok &&
      napi_new_instance(env, constructor, 1, &string, &error) == napi_ok) {
    napi_throw(env, error);
  } else {
    napi_throw_error(env, nullptr, text.c_str());
  }
}

std::string withoutTrailer(std::string message) {
  while (!message.empty() && (message.back() == '\n' || message.back() == ' ')) message.pop_back();
  return message;
}

// libtorch asks to report a bug where some kernels check arguments by an internal assertion. What it says is a matter
// of the arguments: `a == b INTERNAL ASSERT FAILED at "/path/File.cpp":12, please report a bug to PyTorch. Why.`
std::string withoutBugReport(const std::string& message) {
  const std::string marker = "INTERNAL ASSERT FAILED at \"", plea = "please report a bug to PyTorch.";
  const size_t at = message.find(marker), end = message.find(plea);
  if (at == std::string::npos || end == std::string::npos || end < at) return message;
  const std::string place = message.substr(at + marker.size(), end - at - marker.size());  // /path/File.cpp":12,
  const std::string file = place.substr(place.rfind('/') == std::string::npos ? 0 : place.rfind('/') + 1);
  const size_t quote = file.find('"'), comma = file.find(',');
  const std::string line = quote == std::string::npos ? "" : file.substr(quote + 1, comma - quote - 1);
  std::string text = "expected arguments that this operator's kernel takes, but its check '" +
                     withoutTrailer(message.substr(0, at)) + "' failed (" + file.substr(0, quote) + line + ")";
  const std::string why = withoutTrailer(message.substr(end + plea.size()));
  return why.empty() ? text : text + ":" + why;
}

}  // namespace

void throwAsJavaScript(Environment& environment, const char* operation) {
  napi_env env = environment.env;
  if (environment.parkedException != nullptr) {
    napi_value holder, exception;
    napi_get_reference_value(env, environment.parkedException, &holder);
    napi_get_element(env, holder, 0, &exception);
    napi_delete_reference(env, environment.parkedException);
    environment.parkedException = nullptr;
    napi_throw(env, exception);
    return;
  }
  try {
    throw;
  } catch (const ArgumentError& error) {
    if (error.kind == ArgumentError::Kind::Type) {
      napi_throw_type_error(env, nullptr, error.what());
    } else {
      napi_throw_range_error(env, nullptr, error.what());
    }
  } catch (const c10::Error& error) {
    throwTorchError(environment, operation, withoutBugReport(withoutTrailer(error.what_without_backtrace())));
  } catch (const std::bad_alloc&) {
    throwTorchError(environment, operation, "expected enough memory for the result, but none was left");
  } catch (const std::exception& error) {
    throwTorchError(environment, operation, withoutTrailer(error.what()));
  } catch (...) {
    throwTorchError(environment, operation, "libtorch threw something that is not an exception");
  }
}

}  // namespace cleft
