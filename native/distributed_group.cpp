#include "distributed_group.hpp"

#include <ATen/ATen.h>

#include <cstdlib>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "cuda_headers.hpp"

#if defined(CLEFT_CUDA_HEADERS) && __has_include(<nccl.h>)
#define USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "convert.hpp"
#include "distributed_watch.hpp"

namespace cleft {

using c10::intrusive_ptr;
using c10d::OpType;
using Tensors = std::vector<at::Tensor>;
using Work = intrusive_ptr<c10d::Work>;

namespace {

intrusive_ptr<c10d::Store> within(const intrusive_ptr<c10d::Store>& store, const std::string& prefix) {
  return c10::make_intrusive<c10d::PrefixStore>(prefix, store);
}

// All ranks say that they are there: who is not, is named.
void meet(c10d::Store& store, int rank, int size, Milliseconds timeout) {
  const auto key = [](int each) { return c10::str("here/", each); };
  store.set(key(rank), std::vector<uint8_t>{1});
  const auto end = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    std::string missing;
    for (int each = 0; each < size; ++each) {
      if (!store.check({key(each)})) missing += (missing.empty() ? "rank " : ", rank ") + std::to_string(each);
    }
    if (missing.empty()) return;
    if (std::chrono::steady_clock::now() > end) {
      throw std::runtime_error(c10::str("expected ", size, " ranks to come to the group within ",
                                        timeout.count() / 1000.0, " s, but ", missing, " did not"));
    }
    std::this_thread::sleep_for(Milliseconds(20));
  }
}

std::shared_ptr<gloo::transport::Device> glooDevice(const std::string& address) {
  if (!address.empty()) return c10d::ProcessGroupGloo::createDeviceForHostname(address);
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  if (interface != nullptr && *interface != '\0') return c10d::ProcessGroupGloo::createDeviceForInterface(interface);
  return c10d::ProcessGroupGloo::createDefaultDevice();
}

intrusive_ptr<c10d::Backend> makeGloo(const intrusive_ptr<c10d::Store>& store, int rank, int size, Milliseconds timeout,
                                      std::shared_ptr<gloo::transport::Device> device, int threads) {
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  options->threads = threads;
  options->devices.push_back(std::move(device));
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);
}

#ifdef USE_C10D_NCCL
intrusive_ptr<c10d::Backend> makeNccl(const intrusive_ptr<c10d::Store>& store, int rank, int size,
                                      Milliseconds timeout) {
  // NCCL's own watchdogs end the process; ours turns failures into errors.
  setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", 0);
  setenv("TORCH_NCCL_ENABLE_MONITORING", "0", 0);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
}
#endif

// FNV-1a: the same number for the same words on every machine.
int64_t hashOf(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const unsigned char each : text) hash = (hash ^ each) * 0x100000001b3;
  return static_cast<int64_t>(hash);
}

std::string describe(const at::Tensor& tensor) {
  return c10::str(tensor.sizes(), " ", dtypeName(tensor.scalar_type()));
}

std::string describe(const Tensors& tensors) {
  std::string all;
  for (const auto& tensor : tensors) all += (all.empty() ? "" : ", ") + describe(tensor);
  return all;
}

template <typename... Parts>
Signature signatureOf(const Parts&... parts) {
  Signature signature;
  signature.text = c10::str(parts...);
  signature.hash = hashOf(signature.text);
  return signature;
}

const char* nameOf(const c10d::ReduceOp& op) {
  switch (op) {
    case c10d::ReduceOp::SUM: return "sum";
    case c10d::ReduceOp::AVG: return "avg";
    case c10d::ReduceOp::PRODUCT: return "product";
    case c10d::ReduceOp::MIN: return "min";
    case c10d::ReduceOp::MAX: return "max";
    default: return "another reduction";
  }
}

const char* nameOf(OpType type) {
  switch (type) {
    case OpType::BROADCAST: return "broadcast";
    case OpType::ALLREDUCE: return "allReduce";
    case OpType::REDUCE: return "reduce";
    case OpType::ALLGATHER: return "allGather";
    case OpType::_ALLGATHER_BASE: return "allGatherIntoTensor";
    case OpType::GATHER: return "gather";
    case OpType::SCATTER: return "scatter";
    case OpType::REDUCE_SCATTER: return "reduceScatter";
    case OpType::_REDUCE_SCATTER_BASE: return "reduceScatter";
    case OpType::ALLTOALL: return "allToAll";
    case OpType::BARRIER: return "barrier";
    case OpType::SEND: return "send";
    case OpType::RECV: return "recv";
    default: return "another collective";
  }
}

Tensors flatten(const std::vector<Tensors>& lists) {
  Tensors all;
  for (const auto& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

}  // namespace

bool hasBackend(const std::string& kind) {
#ifdef USE_C10D_NCCL
  if (kind == "nccl") return true;
#endif
  return kind == "gloo";
}

intrusive_ptr<WatchedBackend> WatchedBackend::create(const std::string& kind, intrusive_ptr<c10d::Store> store,
                                                     int rank, int size, Milliseconds timeout,
                                                     const std::string& address) {
  meet(*store, rank, size, timeout);
  intrusive_ptr<c10d::Backend> inner, check;
  if (kind == "gloo") {
    const auto device = glooDevice(address);
    inner = makeGloo(within(store, "gloo"), rank, size, timeout, device, 2);
    // Its own connections: what is compared must not wait behind the data of another collective.
    check = makeGloo(within(store, "check"), rank, size, timeout, device, 1);
  }
#ifdef USE_C10D_NCCL
  if (kind == "nccl") inner = makeNccl(within(store, "nccl"), rank, size, timeout);
#endif
  if (!inner) throw std::runtime_error("expected a backend that this build has, but it lacks " + kind);
  auto watch = std::make_shared<Watch>(within(store->clone(), "watch"), inner, check, rank, size, timeout);
  watch->start();
  return c10::make_intrusive<WatchedBackend>(std::move(watch));
}

WatchedBackend::WatchedBackend(std::shared_ptr<Watch> watch)
    : c10d::Backend(watch->rank, watch->size), watch_(std::move(watch)) {}

WatchedBackend::~WatchedBackend() { watch_->stop(); }

const std::string WatchedBackend::getBackendName() const { return watch_->hasCheck() ? "gloo" : "nccl"; }

void WatchedBackend::abortFor(const std::string& reason) { watch_->abort(reason); }

void WatchedBackend::leave(Milliseconds patience) {
  watch_->leave(patience);
  watch_->stop();
}

Work WatchedBackend::launch(OpType type, Signature signature, Milliseconds timeout, Tensors tensors, Watch::Run run,
                            std::function<void()> finish) {
  watch_->checkAlive();
  const uint64_t number = signature.isPairwise ? 0 : watch_->nextNumber(signature.text);
  const std::string text = signature.isPairwise
                               ? c10::str(nameOf(type), signature.isReceive ? " from" : " to", " rank ", signature.peer)
                               : c10::str(nameOf(type), " (collective ", number, " of the group)");
  const Milliseconds limit = timeout == c10d::kUnsetTimeout ? watch_->timeout : timeout;
  auto work = c10::make_intrusive<WatchedWork>(watch_, watch_->rank, type, text, number, limit, std::move(tensors));
  work->finish = std::move(finish);
  watch_->launch(work, std::move(signature), std::move(run));
  return work;
}

Work WatchedBackend::broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) {
  return launch(OpType::BROADCAST, signatureOf("broadcast of ", describe(tensors), " from rank ", options.rootRank),
                options.timeout, tensors,
                [tensors, options](c10d::Backend& inner) mutable { return inner.broadcast(tensors, options); });
}

Work WatchedBackend::allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) {
  return launch(OpType::ALLREDUCE, signatureOf("allReduce of ", describe(tensors), " by ", nameOf(options.reduceOp)),
                options.timeout, tensors,
                [tensors, options](c10d::Backend& inner) mutable { return inner.allreduce(tensors, options); });
}

Work WatchedBackend::reduce(Tensors& tensors, const c10d::ReduceOptions& options) {
  return launch(
      OpType::REDUCE,
      signatureOf("reduce of ", describe(tensors), " by ", nameOf(options.reduceOp), " to rank ", options.rootRank),
      options.timeout, tensors,
      [tensors, options](c10d::Backend& inner) mutable { return inner.reduce(tensors, options); });
}

Work WatchedBackend::allgather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& options) {
  return launch(
      OpType::ALLGATHER, signatureOf("allGather of ", describe(inputs)), options.timeout, flatten(outputs),
      [outputs, inputs, options](c10d::Backend& inner) mutable { return inner.allgather(outputs, inputs, options); });
}

Work WatchedBackend::_allgather_base(at::Tensor& output, at::Tensor& input, const c10d::AllgatherOptions& options) {
  return launch(
      OpType::_ALLGATHER_BASE, signatureOf("allGatherIntoTensor of ", describe(input)), options.timeout, {output},
      [output, input, options](c10d::Backend& inner) mutable { return inner._allgather_base(output, input, options); });
}

Work WatchedBackend::gather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::GatherOptions& options) {
  return launch(OpType::GATHER, signatureOf("gather of ", describe(inputs), " to rank ", options.rootRank),
                options.timeout, flatten(outputs), [outputs, inputs, options](c10d::Backend& inner) mutable {
                  return inner.gather(outputs, inputs, options);
                });
}

Work WatchedBackend::scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ScatterOptions& options) {
  return launch(OpType::SCATTER, signatureOf("scatter of ", describe(outputs), " from rank ", options.rootRank),
                options.timeout, outputs, [outputs, inputs, options](c10d::Backend& inner) mutable {
                  return inner.scatter(outputs, inputs, options);
                });
}

// Gloo's own sends everything to everybody, twice, and its handle does not tell of its end.
Work WatchedBackend::exchangeAndReduce(const at::Tensor& output, const at::Tensor& input,
                                       const c10d::ReduceScatterOptions& options) {
  at::Tensor parts = at::empty({size_, output.numel()}, input.options());
  const auto op = options.reduceOp.op_;
  const auto reduce = [op, parts, output] {
    at::NoGradGuard noGrad;
    at::Tensor flat = output.view({-1});
    switch (op) {
      case c10d::ReduceOp::SUM: at::sum_out(flat, parts, 0, false, flat.scalar_type()); break;
      case c10d::ReduceOp::PRODUCT: at::prod_out(flat, parts, 0, false, flat.scalar_type()); break;
      case c10d::ReduceOp::MIN: at::amin_out(flat, parts, 0); break;
      case c10d::ReduceOp::MAX: at::amax_out(flat, parts, 0); break;
      default: throw std::runtime_error("expected sum, product, min or max");
    }
  };
  return launch(
      OpType::_REDUCE_SCATTER_BASE,
      signatureOf("reduceScatter of ", describe(output), " by ", nameOf(options.reduceOp)), options.timeout, {output},
      [parts, input](c10d::Backend& inner) {
        at::Tensor target = parts.view({-1}), source = input.view({-1});
        std::vector<int64_t> equal, alsoEqual;
        return inner.alltoall_base(target, source, equal, alsoEqual);
      },
      reduce);
}

Work WatchedBackend::reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                    const c10d::ReduceScatterOptions& options) {
  if (watch_->hasCheck()) return exchangeAndReduce(outputs.at(0), at::stack(inputs.at(0)), options);
  return launch(OpType::REDUCE_SCATTER,
                signatureOf("reduceScatter of ", describe(outputs), " by ", nameOf(options.reduceOp)), options.timeout,
                outputs, [outputs, inputs, options](c10d::Backend& inner) mutable {
                  return inner.reduce_scatter(outputs, inputs, options);
                });
}

Work WatchedBackend::_reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                          const c10d::ReduceScatterOptions& options) {
  if (watch_->hasCheck()) return exchangeAndReduce(output, input, options);
  return launch(OpType::_REDUCE_SCATTER_BASE,
                signatureOf("reduceScatterTensor of ", describe(output), " by ", nameOf(options.reduceOp)),
                options.timeout, {output}, [output, input, options](c10d::Backend& inner) mutable {
                  return inner._reduce_scatter_base(output, input, options);
                });
}

Work WatchedBackend::alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& options) {
  Signature signature = signatureOf("allToAll of ", dtypeName(inputs.at(0).scalar_type()));
  for (const auto& input : inputs) signature.sent.push_back(input.numel());
  for (const auto& output : outputs) signature.received.push_back(output.numel());
  if (!watch_->hasCheck()) {
    return launch(
        OpType::ALLTOALL, std::move(signature), options.timeout, outputs,
        [outputs, inputs, options](c10d::Backend& inner) mutable { return inner.alltoall(outputs, inputs, options); });
  }
  // Gloo's own for lists wants equal sizes; the one for a single tensor that is cut into parts does not.
  Tensors flat;
  for (const auto& input : inputs) flat.push_back(input.view({-1}));
  at::Tensor source = at::cat(flat);
  int64_t total = 0;
  for (const int64_t count : signature.received) total += count;
  at::Tensor target = at::empty({total}, source.options());
  auto sent = signature.sent, received = signature.received;
  return launch(
      OpType::ALLTOALL, std::move(signature), options.timeout, outputs,
      [source, target, sent, received](c10d::Backend& inner) mutable {
        return inner.alltoall_base(target, source, received, sent);
      },
      [outputs, target, received] {
        at::NoGradGuard noGrad;
        const auto parts = target.split_with_sizes(received);
        for (size_t k = 0; k < outputs.size(); ++k) outputs[k].view({-1}).copy_(parts[k]);
      });
}

Work WatchedBackend::send(Tensors& tensors, int rank, int tag) {
  Signature signature = signatureOf(tensors.at(0).numel(), " elements of ", dtypeName(tensors[0].scalar_type()));
  signature.isPairwise = true;
  signature.peer = rank;
  signature.tag = tag;
  return launch(OpType::SEND, std::move(signature), c10d::kUnsetTimeout, tensors,
                [tensors, rank, tag](c10d::Backend& inner) mutable { return inner.send(tensors, rank, tag); });
}

Work WatchedBackend::recv(Tensors& tensors, int rank, int tag) {
  Signature signature = signatureOf(tensors.at(0).numel(), " elements of ", dtypeName(tensors[0].scalar_type()));
  signature.isPairwise = signature.isReceive = true;
  signature.peer = rank;
  signature.tag = tag;
  return launch(OpType::RECV, std::move(signature), c10d::kUnsetTimeout, tensors,
                [tensors, rank, tag](c10d::Backend& inner) mutable { return inner.recv(tensors, rank, tag); });
}

Work WatchedBackend::barrier(const c10d::BarrierOptions& options) {
  return launch(OpType::BARRIER, signatureOf("barrier"), options.timeout, {},
                [options](c10d::Backend& inner) { return inner.barrier(options); });
}

}  // namespace cleft
