// Starts the collectives of a group in order, once all ranks are known to ask for the same, and fails them together.
#include "distributed_watch.hpp"

#include <ATen/Functions.h>

#include <algorithm>

namespace cleft {

using namespace std::chrono_literals;

Watch::Watch(c10::intrusive_ptr<c10d::Store> store, c10::intrusive_ptr<c10d::Backend> inner,
             c10::intrusive_ptr<c10d::Backend> check, int rank, int size, Milliseconds timeout)
    : rank(rank),
      size(size),
      timeout(timeout),
      store_(std::move(store)),
      inner_(std::move(inner)),
      check_(std::move(check)),
      checks_(check_.defined()) {}

void Watch::start() {
  const auto run = [this](void (Watch::*loop)()) {
    std::lock_guard<std::mutex> lock(mutex_);
    ++running_;
    std::thread([self = shared_from_this(), loop] {
      (self.get()->*loop)();
      std::lock_guard<std::mutex> lock(self->mutex_);
      --self->running_;
      self->changed_.notify_all();
    }).detach();
  };
  run(&Watch::monitor);
  if (checks_) run(&Watch::dispatch);
}

void Watch::stop() {
  bool idle;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    // A thread may be inside a call to a store that does not answer: it is left to itself then.
    idle = changed_.wait_for(lock, 2s, [this] { return running_ == 0; }) && !failed_ && pending_.empty();
  }
  fail("expected a group that is in use, but it was left");
  if (idle) {
    check_.reset();
    inner_.reset();
  } else {
    // Their destructors wait for what is under way, until its time-out.
    (void)check_.release();
    (void)inner_.release();
  }
}

void Watch::checkAlive() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (failed_) throw std::runtime_error(failure_);
}

uint64_t Watch::nextNumber(const std::string& what) {
  std::lock_guard<std::mutex> lock(mutex_);
  lastText_ = what;
  return ++launched_;
}

void Watch::launch(const Work& work, Signature signature, Run run) {
  if (!checks_) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      pending_.push_back(work);
    }
    try {
      work->started(run(*inner_));
    } catch (...) {
      forget(*work);
      throw;
    }
    return;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (failed_) throw std::runtime_error(failure_);
  pending_.push_back(work);
  if (!signature.isPairwise) {
    jobs_.push_back({work, std::move(signature), std::move(run)});
    changed_.notify_all();
    return;
  }
  const LaneKey key{signature.isReceive, signature.peer, signature.tag};
  Lane& lane = lanes_[key];
  lane.jobs.push_back({work, std::move(signature), std::move(run)});
  if (lane.running) return;
  lane.running = true;
  ++running_;
  std::thread([self = shared_from_this(), key] {
    self->runLane(key);
    std::lock_guard<std::mutex> lock(self->mutex_);
    --self->running_;
    self->changed_.notify_all();
  }).detach();
}

void Watch::forget(const WatchedWork& work) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(pending_, [&](const Work& each) { return each.get() == &work; });
  changed_.notify_all();
}

void Watch::wake() { changed_.notify_all(); }

void Watch::suspect(const std::string& cause, Search search) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (suspicion_.empty()) suspicion_ = static_cast<char>(search) + cause;
  changed_.notify_all();
}

void Watch::fail(const std::string& failure) {
  std::vector<Work> failing;
  std::string known;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!failed_) failure_ = failure;
    failed_ = true;
    known = failure_;
    failing.swap(pending_);
    jobs_.clear();
    lanes_.clear();
    changed_.notify_all();
  }
  for (const auto& work : failing) work->settle(&known);
}

void Watch::abort(const std::string& reason) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (failed_) return;
  suspicion_ = c10::str(static_cast<char>(Search::Nobody), "rank ", rank, " aborted the group: ", reason);
  changed_.notify_all();
  changed_.wait_for(lock, kGrace + 2s, [this] { return failed_ || stopping_; });
}

// --- the dispatcher: starts collectives in order, once all ranks are known to ask for the same

void Watch::dispatch() {
  for (;;) {
    Job job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || failed_ || !jobs_.empty(); });
      if (stopping_ || failed_) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    pass(job);
  }
}

void Watch::pass(const Job& job) {
  try {
    perform(job);
  } catch (const Disagreement& error) {
    suspect(job.work->because(error.what()), Search::Nobody);
  } catch (...) {
    suspect(job.work->because(messageOf(std::current_exception())), Search::Late);
  }
}

void Watch::perform(const Job& job) {
  if (size > 1) checkSignature(job);
  job.work->started(job.run(*inner_));
}

// Messages between two ranks, in order for each peer, direction and tag. Gloo's handles for these have no completion
// hook, so that a thread has to wait; and a message that is longer than what was expected would end the process, so
// that its signature goes ahead.
void Watch::runLane(const LaneKey& key) {
  for (;;) {
    Job job;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const auto found = lanes_.find(key);
      if (found == lanes_.end()) return;
      if (stopping_ || found->second.jobs.empty()) {
        lanes_.erase(found);
        return;
      }
      job = std::move(found->second.jobs.front());
      found->second.jobs.pop_front();
    }
    try {
      at::Tensor header = at::full({1}, job.signature.hash, at::kLong);
      std::vector<at::Tensor> headers{header};
      const int peer = job.signature.peer, tag = job.signature.tag;
      if (job.signature.isReceive) {
        inner_->recv(headers, peer, tag)->wait(job.work->timeout);
        if (header.item<int64_t>() != job.signature.hash) {
          throw Disagreement(c10::str("expected what rank ", peer, " sends to be ", job.signature.text,
                                      ", but it is of another dtype or number of elements"));
        }
        job.run(*inner_)->wait(job.work->timeout);
      } else {
        auto first = inner_->send(headers, peer, tag);
        auto second = job.run(*inner_);
        first->wait(job.work->timeout);
        second->wait(job.work->timeout);
      }
      job.work->settle(nullptr);
    } catch (const Disagreement& error) {
      suspect(job.work->because(error.what()), Search::Nobody);
      return;
    } catch (...) {
      suspect(job.work->because(messageOf(std::current_exception())), Search::Missing);
      return;
    }
  }
}

void Watch::await(const c10::intrusive_ptr<c10d::Work>& work) {
  auto self = shared_from_this();
  work->getFuture()->addCallback([self](c10::ivalue::Future&) {
    std::lock_guard<std::mutex> lock(self->mutex_);
    self->changed_.notify_all();
  });
  const auto future = work->getFuture();
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return stopping_ || failed_ || future->completed(); });
  if (!future->completed()) throw std::runtime_error("the group has ended");
  if (future->hasError()) std::rethrow_exception(future->exception_ptr());
}

// Gloo trusts its caller: where ranks differ in the operation or the size, it ends the process, or mixes up the data.
void Watch::checkSignature(const Job& job) {
  c10d::AllgatherOptions options;
  options.timeout = job.work->timeout;
  at::Tensor own = at::full({1}, job.signature.hash, at::kLong);
  at::Tensor all = at::empty({size}, at::kLong);
  await(check_->_allgather_base(all, own, options));
  const int64_t* hashes = all.const_data_ptr<int64_t>();
  if (!std::all_of(hashes, hashes + size, [&](int64_t hash) { return hash == job.signature.hash; })) {
    explainDifference(job, all);
  }
  if (job.signature.sent.empty()) return;
  // allToAll: what I send to each, and what each expects of me
  std::vector<int64_t> counts = job.signature.sent;
  counts.insert(counts.end(), job.signature.received.begin(), job.signature.received.end());
  own = at::tensor(counts, at::kLong);
  all = at::empty({size * 2 * size}, at::kLong);
  await(check_->_allgather_base(all, own, options));
  const int64_t* table = all.const_data_ptr<int64_t>();
  for (int from = 0; from < size; ++from) {
    for (int to = 0; to < size; ++to) {
      const int64_t sent = table[from * 2 * size + to], expected = table[to * 2 * size + size + from];
      if (sent != expected) {
        throw Disagreement(c10::str("expected rank ", to, "'s output for rank ", from, " to have the ", sent,
                                    " elements that rank ", from, " sends, but it has ", expected));
      }
    }
  }
}

void Watch::explainDifference(const Job& job, const at::Tensor& hashes) {
  const auto key = [&](int rank) { return c10::str("says/", job.work->number, "/", rank); };
  {
    std::lock_guard<std::mutex> lock(storeMutex_);
    store_->set(key(rank), bytesOf(job.signature.text));
  }
  const int64_t first = hashes.const_data_ptr<int64_t>()[0];
  int other = 0;
  while (other < size && hashes.const_data_ptr<int64_t>()[other] == first) ++other;
  const auto said = [&](int rank) { return read(key(rank), kGrace).value_or("something else"); };
  throw Disagreement(c10::str("expected all ranks to ask for the same, but rank 0 asks for ", said(0), " and rank ",
                              other, " for ", said(other)));
}

}  // namespace cleft
