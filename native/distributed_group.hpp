// A group of processes: a backend of libtorch (Gloo, NCCL) behind one that watches it. Every wait ends: with the
// result, or with an error that names the rank that is missing, late, or asks for something else than the others.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <vector>

namespace cleft {

using Milliseconds = std::chrono::milliseconds;

// What all ranks of a collective must agree on: a number to compare, and words for the error where they do not.
struct Signature {
  int64_t hash = 0;
  std::string text;
  std::vector<int64_t> sent, received;  // elements to and from each rank, where these may differ (allToAll)
  // A message between two ranks, in which nobody else takes part:
  bool isPairwise = false, isReceive = false;
  int peer = 0, tag = 0;
};

// Called once, from any thread, when a work has ended: with null, or with why it failed.
using Listener = std::function<void(const std::string* failure)>;

class Watch;

// One collective on its way.
class WatchedWork : public c10d::Work {
 public:
  WatchedWork(std::shared_ptr<Watch> watch, int rank, c10d::OpType type, std::string text, uint64_t number,
              Milliseconds timeout, std::vector<at::Tensor> tensors);
  bool isCompleted() override;
  bool isSuccess() const override;
  std::exception_ptr exception() const override;
  bool wait(Milliseconds timeout = kNoTimeout) override;
  void synchronize() override;
  void abort() override;
  std::vector<at::Tensor> result() override { return tensors_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }
  uint64_t getSequencenumber() const override { return number; }

  void listen(Listener listener);
  // Ends the work; the first call counts.
  void settle(const std::string* failure);
  void started(c10::intrusive_ptr<c10d::Work> inner);
  // The words of a failure; Gloo and NCCL have their own for a time-out.
  std::string because(const std::string& cause) const;
  // For backends without a completion hook: looks whether the work has ended.
  void poll();

  // What is left to do here when the data has come.
  std::function<void()> finish;

  const std::string text;
  const uint64_t number;
  const std::chrono::steady_clock::time_point deadline;
  const Milliseconds timeout;

 private:
  std::shared_ptr<Watch> watch_;
  std::vector<at::Tensor> tensors_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
  c10::intrusive_ptr<c10d::Work> inner_;
  bool settled_ = false;
  std::string failure_;
  std::vector<Listener> listeners_;
};

class WatchedBackend : public c10d::Backend {
 public:
  // Blocks until all ranks have come, at most `timeout`. `address`: where this process listens (Gloo), may be empty.
  static c10::intrusive_ptr<WatchedBackend> create(const std::string& kind, c10::intrusive_ptr<c10d::Store> store,
                                                   int rank, int size, Milliseconds timeout,
                                                   const std::string& address);
  explicit WatchedBackend(std::shared_ptr<Watch> watch);
  ~WatchedBackend() override;

  const std::string getBackendName() const override;
  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>&, const c10d::BroadcastOptions&) override;
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>&, const c10d::AllreduceOptions&) override;
  c10::intrusive_ptr<c10d::Work> reduce(std::vector<at::Tensor>&, const c10d::ReduceOptions&) override;
  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>&, std::vector<at::Tensor>&,
                                           const c10d::AllgatherOptions&) override;
  c10::intrusive_ptr<c10d::Work> _allgather_base(at::Tensor&, at::Tensor&, const c10d::AllgatherOptions&) override;
  c10::intrusive_ptr<c10d::Work> gather(std::vector<std::vector<at::Tensor>>&, std::vector<at::Tensor>&,
                                        const c10d::GatherOptions&) override;
  c10::intrusive_ptr<c10d::Work> scatter(std::vector<at::Tensor>&, std::vector<std::vector<at::Tensor>>&,
                                         const c10d::ScatterOptions&) override;
  c10::intrusive_ptr<c10d::Work> reduce_scatter(std::vector<at::Tensor>&, std::vector<std::vector<at::Tensor>>&,
                                                const c10d::ReduceScatterOptions&) override;
  c10::intrusive_ptr<c10d::Work> _reduce_scatter_base(at::Tensor&, at::Tensor&,
                                                      const c10d::ReduceScatterOptions&) override;
  c10::intrusive_ptr<c10d::Work> alltoall(std::vector<at::Tensor>&, std::vector<at::Tensor>&,
                                          const c10d::AllToAllOptions&) override;
  c10::intrusive_ptr<c10d::Work> send(std::vector<at::Tensor>&, int rank, int tag) override;
  c10::intrusive_ptr<c10d::Work> recv(std::vector<at::Tensor>&, int rank, int tag) override;
  c10::intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions&) override;
  // Fails what is under way here, and tells the other ranks, which fail likewise.
  void abort() override { abortFor("without a reason"); }
  void abortFor(const std::string& reason);
  // Leaves the group in order. Rank 0, whose process may hold the store, waits for the others, at most `patience`.
  void leave(Milliseconds patience);

 private:
  c10::intrusive_ptr<c10d::Work> launch(c10d::OpType type, Signature signature, Milliseconds timeout,
                                        std::vector<at::Tensor> tensors,
                                        std::function<c10::intrusive_ptr<c10d::Work>(c10d::Backend&)> run,
                                        std::function<void()> finish = nullptr);
  c10::intrusive_ptr<c10d::Work> exchangeAndReduce(const at::Tensor& output, const at::Tensor& input,
                                                   const c10d::ReduceScatterOptions& options);

  std::shared_ptr<Watch> watch_;
};

// Whether a backend is in this build: 'gloo', 'nccl'.
bool hasBackend(const std::string& kind);

}  // namespace cleft
