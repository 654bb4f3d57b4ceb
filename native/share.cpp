#include "share.hpp"

#include <mutex>
#include <unordered_map>

#include "convert.hpp"

namespace cleft {

namespace {

// The one table that all environments of the process share: tensors on their way, by one-time token.
struct Parcel {
  at::Tensor tensor;
  const Environment* sender;
};
struct Post {
  std::mutex mutex;
  std::unordered_map<uint64_t, Parcel> parcels;
  uint64_t nextToken = 1;
};
Post& post() {
  static auto* instance = new Post();
  return *instance;
}

// sendTensor(tensor): a token that one worker can exchange for the same memory, once
Napi::Value sendTensor(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = tensorOf(environment, info[0], {"send", "tensor"});
  std::lock_guard<std::mutex> lock(post().mutex);
  const uint64_t token = post().nextToken++;
  post().parcels.emplace(token, Parcel{tensor.detach(), &environment});
  return Napi::BigInt::New(info.Env(), token);
}

Napi::Value receiveTensor(Environment& environment, const Napi::CallbackInfo& info) {
  uint64_t token = 0;
  bool lossless = false;
  if (napi_get_value_bigint_uint64(info.Env(), info[0], &token, &lossless) != napi_ok) {
    typeError("receive: expected a token that send() made, but received ", describe(info.Env(), info[0]));
  }
  at::Tensor tensor;
  {
    std::lock_guard<std::mutex> lock(post().mutex);
    const auto found = post().parcels.find(token);
    if (found == post().parcels.end()) {
      rangeError("receive: expected a token that was not collected and whose sender is alive, but received ", token);
    }
    tensor = std::move(found->second.tensor);
    post().parcels.erase(found);
  }
  return {info.Env(), fromTensor(environment, tensor)};
}

Napi::Value tensorsInTransit(Environment&, const Napi::CallbackInfo& info) {
  std::lock_guard<std::mutex> lock(post().mutex);
  return Napi::Number::New(info.Env(), static_cast<double>(post().parcels.size()));
}

}  // namespace

void forgetParcels(const Environment& sender) {
  std::lock_guard<std::mutex> lock(post().mutex);
  for (auto entry = post().parcels.begin(); entry != post().parcels.end();) {
    entry = entry->second.sender == &sender ? post().parcels.erase(entry) : std::next(entry);
  }
}

void defineShare(Napi::Object exports, Environment& environment) {
  define<sendTensor>(exports, environment, "sendTensor", "send");
  define<receiveTensor>(exports, environment, "receiveTensor", "receive");
  define<tensorsInTransit>(exports, environment, "tensorsInTransit");
}

}  // namespace cleft
