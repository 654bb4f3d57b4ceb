#include "distributed.hpp"

#include <c10/util/Logging.h>

#include <cstdlib>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "promise_worker.hpp"

namespace cleft {

namespace {

using Store = c10::intrusive_ptr<c10d::Store>;
using Work = c10::intrusive_ptr<c10d::Work>;
using Tensors = std::vector<at::Tensor>;

const napi_type_tag kStoreTag = {0x3f1d7c52a9e84b06, 0x8c5b0d9e17f64a23};
const napi_type_tag kGroupTag = {0x52c7e0914d6b4f3a, 0xb1a86f2d90c3475e};
const napi_type_tag kWorkTag = {0x7a20d4f6183c4e9b, 0xa3e95c7b2f0841d6};

Store& storeOf(napi_env env, napi_value value, const char* operation) {
  return unwrapped<Store>(env, value, kStoreTag, {operation, "the store"}, "a store");
}

c10::intrusive_ptr<WatchedWork> workOf(napi_env env, napi_value value, const char* operation) {
  return c10::static_intrusive_pointer_cast<WatchedWork>(
      unwrapped<Work>(env, value, kWorkTag, {operation, "the work"}, "the work of a collective"));
}

napi_value errorOf(napi_env env, const std::string& text) {
  napi_value message, constructor, error;
  napi_create_string_utf8(env, text.c_str(), text.size(), &message);
  const Environment& environment = Environment::of(env);
  if (napi_get_reference_value(env, environment.errorConstructor, &constructor) == napi_ok &&
      napi_new_instance(env, constructor, 1, &message, &error) == napi_ok) {
    return error;
  }
  napi_create_error(env, nullptr, message, &error);
  return error;
}

// Something that blocks, on a thread of Node's pool, as a Promise.
class Task : public PromiseWorker {
 public:
  using Finish = std::function<napi_value(napi_env)>;
  Task(Napi::Env env, const char* operation, std::function<Finish()> run)
      : PromiseWorker(env), operation_(operation), run_(std::move(run)) {}

 protected:
  void Execute() override {
    try {
      finish_ = run_();
    } catch (const c10::Error& error) {
      failure_ = error.what_without_backtrace();
    } catch (const std::exception& error) {
      failure_ = error.what();
    }
  }
  void settle(napi_env env) override {
    if (failure_.empty()) {
      napi_resolve_deferred(env, deferred_, finish_(env));
      return;
    }
    const size_t end = failure_.find('\n');
    napi_reject_deferred(env, deferred_, errorOf(env, operation_ + ": " + failure_.substr(0, end)));
  }

 private:
  const std::string operation_;
  std::function<Finish()> run_;
  Finish finish_;
  std::string failure_;
};

Napi::Value started(Napi::Env env, const char* operation, std::function<Task::Finish()> run) {
  auto* task = new Task(env, operation, std::move(run));
  const napi_value promise = task->promise();
  task->Queue();
  return {env, promise};
}

napi_value undefinedOf(napi_env env) {
  napi_value value;
  napi_get_undefined(env, &value);
  return value;
}

// --- stores

std::string keyOf(const Napi::CallbackInfo& info, const char* operation) {
  return stringOf(info.Env(), info[1], {operation, "the key"});
}

std::vector<uint8_t> bytesOf(napi_env env, napi_value value, Place place) {
  Napi::Value given(env, value);
  if (!given.IsTypedArray() || given.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    typeError(place.operation, ": expected ", place.argument, " to be a Uint8Array, but received ",
              describe(env, value));
  }
  const auto array = given.As<Napi::Uint8Array>();
  return {array.Data(), array.Data() + array.ByteLength()};
}

Napi::Value fromBytes(Napi::Env env, const std::vector<uint8_t>& bytes) {
  auto array = Napi::Uint8Array::New(env, bytes.size());
  std::copy(bytes.begin(), bytes.end(), array.Data());
  return array;
}

Milliseconds timeOf(napi_env env, napi_value value, Place place) { return Milliseconds(integerOf(env, value, place)); }

// A connection that breaks is an error here, and libtorch logs it too, with a page of addresses.
void quietLog() {
  constexpr int onlyErrors = 2;
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = onlyErrors;
}

// openStore(host, port, isServer, timeout): a Promise of a store
Napi::Value openStore(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const std::string host = stringOf(env, info[0], {"TCPStore", "host"});
  c10d::TCPStoreOptions options;
  const int64_t port = integerOf(env, info[1], {"TCPStore", "port"});
  if (port < 0 || port > 65535) rangeError("TCPStore: expected a port from 0 to 65535, but received ", port);
  options.port = static_cast<uint16_t>(port);
  options.isServer = booleanOf(env, info[2], {"TCPStore", "isServer"});
  quietLog();
  options.waitWorkers = false;
  options.timeout = timeOf(env, info[3], {"TCPStore", "timeout"});
  return started(env, "TCPStore", [host, options]() -> Task::Finish {
    Store store = c10::make_intrusive<c10d::TCPStore>(host, options);
    return [store](napi_env env) { return wrapped<Store>(env, kStoreTag, store); };
  });
}

Napi::Value prefixStore(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Store within = c10::make_intrusive<c10d::PrefixStore>(stringOf(env, info[1], {"PrefixStore", "prefix"}),
                                                        storeOf(env, info[0], "PrefixStore"));
  return {env, wrapped<Store>(env, kStoreTag, std::move(within))};
}

Napi::Value storePort(Environment&, const Napi::CallbackInfo& info) {
  const auto* tcp = dynamic_cast<c10d::TCPStore*>(storeOf(info.Env(), info[0], "port").get());
  if (tcp == nullptr) typeError("port: expected a TCPStore, but received another store");
  return Napi::Number::New(info.Env(), tcp->getPort());
}

Napi::Value storeSet(Environment&, const Napi::CallbackInfo& info) {
  storeOf(info.Env(), info[0], "set")->set(keyOf(info, "set"), bytesOf(info.Env(), info[2], {"set", "the value"}));
  return info.Env().Undefined();
}

Napi::Value storeGet(Environment&, const Napi::CallbackInfo& info) {
  return fromBytes(info.Env(), storeOf(info.Env(), info[0], "get")->get(keyOf(info, "get")));
}

Napi::Value storeAdd(Environment&, const Napi::CallbackInfo& info) {
  const int64_t sum = storeOf(info.Env(), info[0], "add")
                          ->add(keyOf(info, "add"), integerOf(info.Env(), info[2], {"add", "the amount"}));
  return {info.Env(), fromInteger(info.Env(), sum)};
}

Napi::Value storeCheck(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::vector<std::string> keys;
  const auto given = info[1].As<Napi::Array>();
  for (uint32_t k = 0; k < given.Length(); ++k) keys.push_back(stringOf(env, given.Get(k), {"check", "a key"}));
  return Napi::Boolean::New(env, storeOf(env, info[0], "check")->check(keys));
}

Napi::Value storeDelete(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), storeOf(info.Env(), info[0], "delete")->deleteKey(keyOf(info, "delete")));
}

Napi::Value storeCompareSet(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return fromBytes(
      env, storeOf(env, info[0], "compareSet")
               ->compareSet(keyOf(info, "compareSet"), bytesOf(env, info[2], {"compareSet", "the expected value"}),
                            bytesOf(env, info[3], {"compareSet", "the desired value"})));
}

Napi::Value storeCount(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(storeOf(info.Env(), info[0], "numKeys")->getNumKeys()));
}

// --- groups

// makeGroup(store, backend, rank, size, timeout, address or null): a Promise of a group
Napi::Value makeGroup(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const char* operation = "initProcessGroup";
  Store store = storeOf(env, info[0], operation);
  const std::string kind = stringOf(env, info[1], {operation, "backend"});
  const auto rank = static_cast<int>(integerOf(env, info[2], {operation, "rank"}));
  const auto size = static_cast<int>(integerOf(env, info[3], {operation, "worldSize"}));
  const Milliseconds timeout = timeOf(env, info[4], {operation, "timeout"});
  const std::string address = isNullish(env, info[5]) ? "" : stringOf(env, info[5], {operation, "address"});
  return started(env, operation, [=]() -> Task::Finish {
    Group group;
    group.backend = WatchedBackend::create(kind, store, rank, size, timeout, address);
    group.processes = c10::make_intrusive<c10d::ProcessGroup>(store, rank, size);
    const bool isGloo = kind == "gloo";
    const auto type = isGloo ? c10d::ProcessGroup::BackendType::GLOO : c10d::ProcessGroup::BackendType::NCCL;
    group.processes->setBackend(isGloo ? c10::DeviceType::CPU : c10::DeviceType::CUDA, type,
                                c10::intrusive_ptr<c10d::Backend>(group.backend));
    group.processes->setDefaultBackend(type);
    group.processes->setGroupName(c10::str("cleft-", kind));
    return [group](napi_env env) { return wrapped<Group>(env, kGroupTag, group); };
  });
}

Napi::Value leaveGroup(Environment&, const Napi::CallbackInfo& info) {
  const auto backend = groupOf(info.Env(), info[0], {"destroyProcessGroup", "the group"}).backend;
  const Milliseconds patience = timeOf(info.Env(), info[1], {"destroyProcessGroup", "patience"});
  return started(info.Env(), "destroyProcessGroup", [backend, patience]() -> Task::Finish {
    backend->leave(patience);
    return undefinedOf;
  });
}

Napi::Value abortGroup(Environment&, const Napi::CallbackInfo& info) {
  const auto backend = groupOf(info.Env(), info[0], {"abort", "the group"}).backend;
  const std::string reason = stringOf(info.Env(), info[1], {"abort", "the reason"});
  return started(info.Env(), "abort", [backend, reason]() -> Task::Finish {
    backend->abortFor(reason);
    return undefinedOf;
  });
}

Napi::Value hasBackendNamed(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), hasBackend(stringOf(info.Env(), info[0], {"hasBackend", "the name"})));
}

// --- collectives

struct Call {
  const std::string name;
  const bool isGloo;

  // Collectives read and write memory as one block, and know nothing of autograd.
  Tensors outputs(Tensors tensors) const {
    for (auto& tensor : tensors) {
      check(tensor);
      if (!tensor.is_contiguous()) {
        typeError(name, ": expected contiguous tensors to write to, but one of shape ", tensor.sizes(), " has strides ",
                  tensor.strides());
      }
      if (tensor.is_inference() == false) tensor.unsafeGetTensorImpl()->bump_version();
      tensor = tensor.detach();
    }
    return tensors;
  }
  Tensors inputs(Tensors tensors) const {
    for (auto& tensor : tensors) {
      check(tensor);
      tensor = tensor.detach().contiguous();
    }
    return tensors;
  }
  void check(const at::Tensor& tensor) const {
    if (!tensor.defined()) typeError(name, ": expected a tensor, but received null");
    if (tensor.layout() != at::kStrided) typeError(name, ": expected dense tensors, but received a sparse one");
    if (isGloo ? !tensor.is_cpu() : !tensor.is_cuda()) {
      typeError(name, ": expected tensors on ", isGloo ? "the CPU for Gloo" : "a GPU for NCCL", ", but one is on ",
                tensor.device().str());
    }
  }
  void expectSame(const at::Tensor& expected, const Tensors& tensors, size_t count, const char* what) const {
    if (tensors.size() != count) {
      rangeError(name, ": expected ", count, " ", what, ", one for each rank, but received ", tensors.size());
    }
    for (const auto& tensor : tensors) {
      if (tensor.scalar_type() == expected.scalar_type() && tensor.sizes() == expected.sizes()) continue;
      rangeError(name, ": expected ", what, " of shape ", expected.sizes(), " and ", dtypeName(expected.scalar_type()),
                 " as the other tensor, but one is of shape ", tensor.sizes(), " and ",
                 dtypeName(tensor.scalar_type()));
    }
  }
  void expectTimes(const at::Tensor& whole, const at::Tensor& part, int size) const {
    if (whole.scalar_type() == part.scalar_type() && whole.numel() == part.numel() * size) return;
    rangeError(name, ": expected the whole to have ", size, " times the part's ", part.numel(), " elements in ",
               dtypeName(part.scalar_type()), ", but it has ", whole.numel(), " in ", dtypeName(whole.scalar_type()));
  }
};

struct Settings {
  c10d::ReduceOp reduceOp;
  int peer = 0;  // the root, or the other side
  int tag = 0;
  Milliseconds timeout = c10d::kUnsetTimeout;
};

template <typename Options>
Options optionsOf(const Settings& settings) {
  Options options;
  options.timeout = settings.timeout;
  if constexpr (requires { options.rootRank; }) options.rootRank = settings.peer;
  if constexpr (requires { options.reduceOp; }) options.reduceOp = settings.reduceOp;
  return options;
}

Work run(const Call& call, WatchedBackend& backend, Tensors outputs, Tensors inputs, const Settings& settings) {
  const int size = backend.getSize(), rank = backend.getRank();
  const std::string& name = call.name;
  const bool isRoot = settings.peer == rank;
  std::vector<Tensors> lists;
  if (name == "barrier") return backend.barrier(optionsOf<c10d::BarrierOptions>(settings));
  if (name == "broadcast") return backend.broadcast(outputs, optionsOf<c10d::BroadcastOptions>(settings));
  if (name == "allReduce") return backend.allreduce(outputs, optionsOf<c10d::AllreduceOptions>(settings));
  if (name == "reduce") return backend.reduce(outputs, optionsOf<c10d::ReduceOptions>(settings));
  if (name == "send") return backend.send(inputs, settings.peer, settings.tag);
  if (name == "recv") return backend.recv(outputs, settings.peer, settings.tag);
  if (name == "allGather") {
    call.expectSame(inputs.at(0), outputs, size, "outputs");
    lists = {outputs};
    return backend.allgather(lists, inputs, optionsOf<c10d::AllgatherOptions>(settings));
  }
  if (name == "allGatherIntoTensor") {
    call.expectTimes(outputs.at(0), inputs.at(0), size);
    // The whole may lie in memory as [N * B, ...] or as [N, B, ...]: Gloo wants one of them.
    at::Tensor whole = outputs[0].view({-1}), part = inputs[0].view({-1});
    return backend._allgather_base(whole, part, optionsOf<c10d::AllgatherOptions>(settings));
  }
  if (name == "gather") {
    call.expectSame(inputs.at(0), outputs, isRoot ? size : 0, "outputs");
    if (isRoot) lists = {outputs};
    return backend.gather(lists, inputs, optionsOf<c10d::GatherOptions>(settings));
  }
  if (name == "scatter") {
    call.expectSame(outputs.at(0), inputs, isRoot ? size : 0, "inputs");
    if (isRoot) lists = {inputs};
    return backend.scatter(outputs, lists, optionsOf<c10d::ScatterOptions>(settings));
  }
  if (name == "reduceScatter") {
    call.expectSame(outputs.at(0), inputs, size, "inputs");
    lists = {inputs};
    return backend.reduce_scatter(outputs, lists, optionsOf<c10d::ReduceScatterOptions>(settings));
  }
  if (name == "reduceScatterTensor") {
    call.expectTimes(inputs.at(0), outputs.at(0), size);
    return backend._reduce_scatter_base(outputs[0], inputs[0], optionsOf<c10d::ReduceScatterOptions>(settings));
  }
  if (name == "allToAll") {
    const auto count = static_cast<size_t>(size);
    if (inputs.size() != count || outputs.size() != count) {
      rangeError(name, ": expected ", size, " inputs and outputs, one for each rank, but received ", inputs.size(),
                 " and ", outputs.size());
    }
    for (const auto* list : {&inputs, &outputs}) {
      for (const auto& tensor : *list) {
        if (tensor.scalar_type() != inputs[0].scalar_type()) typeError(name, ": expected tensors of one dtype");
      }
    }
    return backend.alltoall(outputs, inputs, optionsOf<c10d::AllToAllOptions>(settings));
  }
  typeError("expected the name of a collective, but received ", name);
}

// collective(group, name, outputs, inputs, reduceOp, peer, tag, timeout or -1): its work
Napi::Value collective(Environment& environment, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  WatchedBackend& backend = *groupOf(env, info[0], {"collective", "the group"}).backend;
  const Call call{stringOf(env, info[1], {"collective", "the name"}), backend.getBackendName() == "gloo"};
  const Place place{call.name.c_str(), "the tensors"};
  Settings settings;
  settings.reduceOp = c10d::ReduceOp(static_cast<c10d::ReduceOp::RedOpType>(integerOf(env, info[4], place)));
  settings.peer = static_cast<int>(integerOf(env, info[5], place));
  settings.tag = static_cast<int>(integerOf(env, info[6], place));
  settings.timeout = timeOf(env, info[7], place);
  Work work = run(call, backend, call.outputs(tensorsOf(environment, info[2], place)),
                  call.inputs(tensorsOf(environment, info[3], place)), settings);
  return {env, wrapped<Work>(env, kWorkTag, std::move(work))};
}

Napi::Value waitWork(Environment&, const Napi::CallbackInfo& info) {
  workOf(info.Env(), info[0], "wait")->wait();
  return info.Env().Undefined();
}

Napi::Value isWorkCompleted(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), workOf(info.Env(), info[0], "isCompleted")->isCompleted());
}

struct Outcome {
  napi_deferred deferred;
  std::optional<std::string> failure;
};

void settleOnMain(napi_env env, napi_value, void*, void* data) {
  const std::unique_ptr<Outcome> outcome(static_cast<Outcome*>(data));
  if (env == nullptr) return;
  if (outcome->failure) {
    napi_reject_deferred(env, outcome->deferred, errorOf(env, *outcome->failure));
  } else {
    napi_resolve_deferred(env, outcome->deferred, undefinedOf(env));
  }
}

// workPromise(work): settles when the work has ended; no thread waits for it
Napi::Value workPromise(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto work = workOf(env, info[0], "then");
  napi_deferred deferred;
  napi_value promise;
  napi_create_promise(env, &deferred, &promise);
  napi_threadsafe_function function;
  const auto name = Napi::String::New(env, "cleft work");
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, settleOnMain,
                                      &function) != napi_ok) {
    throw std::runtime_error("expected to be told of the end of the work, but the environment is closing");
  }
  work->listen([function, deferred](const std::string* failure) {
    auto* outcome = new Outcome{deferred, failure == nullptr ? std::nullopt : std::optional<std::string>(*failure)};
    if (napi_call_threadsafe_function(function, outcome, napi_tsfn_nonblocking) != napi_ok) {
      delete outcome;
      return;  // the environment has closed, and taken the function with it
    }
    napi_release_threadsafe_function(function, napi_tsfn_release);
  });
  return {env, promise};
}

}  // namespace

Group& groupOf(napi_env env, napi_value value, Place place) {
  return unwrapped<Group>(env, value, kGroupTag, place, "a process group");
}

void defineDistributed(Napi::Object exports, Environment& environment) {
  define<openStore>(exports, environment, "openStore", "TCPStore");
  define<prefixStore>(exports, environment, "prefixStore", "PrefixStore");
  define<storePort>(exports, environment, "storePort", "TCPStore.port");
  define<storeSet>(exports, environment, "storeSet", "Store.set");
  define<storeGet>(exports, environment, "storeGet", "Store.get");
  define<storeAdd>(exports, environment, "storeAdd", "Store.add");
  define<storeCheck>(exports, environment, "storeCheck", "Store.check");
  define<storeDelete>(exports, environment, "storeDelete", "Store.delete");
  define<storeCompareSet>(exports, environment, "storeCompareSet", "Store.compareSet");
  define<storeCount>(exports, environment, "storeCount", "Store.numKeys");
  define<makeGroup>(exports, environment, "makeGroup", "initProcessGroup");
  define<leaveGroup>(exports, environment, "leaveGroup", "destroyProcessGroup");
  define<abortGroup>(exports, environment, "abortGroup", "abort");
  define<hasBackendNamed>(exports, environment, "hasBackend");
  define<collective>(exports, environment, "collective", "");
  define<waitWork>(exports, environment, "waitWork", "");
  define<isWorkCompleted>(exports, environment, "isWorkCompleted", "isCompleted");
  define<workPromise>(exports, environment, "workPromise", "");
  defineReducer(exports, environment);
}

}  // namespace cleft
