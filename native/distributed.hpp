// Several processes: PyTorch's c10d, which is inside of libtorch.
#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "convert.hpp"
#include "distributed_group.hpp"

namespace cleft {

// What a JavaScript group holds.
struct Group {
  c10::intrusive_ptr<WatchedBackend> backend;
  c10::intrusive_ptr<c10d::ProcessGroup> processes;  // for the Reducer
};

Group& groupOf(napi_env env, napi_value value, Place place);

// A C++ value inside a JavaScript one, with a tag that says of what type.
template <typename T>
napi_value wrapped(napi_env env, const napi_type_tag& tag, T value) {
  auto external = Napi::External<T>::New(env, new T(std::move(value)), [](Napi::Env, T* held) { delete held; });
  napi_type_tag_object(env, external, &tag);
  return external;
}

template <typename T>
T& unwrapped(napi_env env, napi_value value, const napi_type_tag& tag, Place place, const char* expected) {
  bool ours = false;
  napi_valuetype type;
  napi_typeof(env, value, &type);
  if (type == napi_external) napi_check_object_type_tag(env, value, &tag, &ours);
  if (!ours)
    typeError(place.operation, ": expected ", place.argument, " to be ", expected, ", but received ",
              describe(env, value));
  return *Napi::External<T>(env, value).Data();
}

void defineDistributed(Napi::Object exports, Environment& environment);
void defineReducer(Napi::Object exports, Environment& environment);

}  // namespace cleft
