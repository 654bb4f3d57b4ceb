#include "distributed_watch.hpp"

#include <ATen/Functions.h>

#include <algorithm>

namespace cleft {

using namespace std::chrono_literals;

namespace {

// How often the monitor looks into the store: the store of a large job stays idle, and a failure is known soon enough.
constexpr auto kLook = 200ms;
// How long a rank may take to say where it is, when it is asked.
constexpr auto kGrace = 3s;

std::string seconds(Milliseconds time) {
  const auto tenths = (time.count() + 50) / 100;
  return tenths % 10 == 0 ? c10::str(tenths / 10, " s") : c10::str(tenths / 10, ".", tenths % 10, " s");
}

// "[path/pair.cc:123] What happened\nException raised from ...": only what happened.
std::string plain(const std::string& message) {
  const size_t end = message.find('\n');
  std::string line = message.substr(0, end);
  const size_t bracket = line.find("] ");
  return !line.empty() && line[0] == '[' && bracket != std::string::npos ? line.substr(bracket + 2) : line;
}

std::string messageOf(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const c10::Error& error) {
    return plain(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return plain(error.what());
  } catch (...) {
    return "an error without words";
  }
}

std::string join(const std::vector<std::string>& parts) {
  std::string all;
  for (const auto& part : parts) all += (all.empty() ? "" : "; ") + part;
  return all;
}

std::vector<uint8_t> bytes(const std::string& text) { return {text.begin(), text.end()}; }
std::string text(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

// What a rank was at: "3|allReduce of ..."
struct Standing {
  uint64_t launched = 0;
  std::string last;
};

Standing standingOf(const std::string& state) {
  const size_t bar = state.find('|');
  return {std::stoull(state.substr(0, bar)), state.substr(bar + 1)};
}

}  // namespace

WatchedWork::WatchedWork(std::shared_ptr<Watch> watch, int rank, c10d::OpType type, std::string text, uint64_t number,
                         Milliseconds timeout, std::vector<at::Tensor> tensors)
    : c10d::Work(rank, type),
      text(std::move(text)),
      number(number),
      deadline(std::chrono::steady_clock::now() + timeout),
      timeout(timeout),
      watch_(std::move(watch)),
      tensors_(std::move(tensors)),
      future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()))) {}

bool WatchedWork::isCompleted() {
  std::lock_guard<std::mutex> lock(mutex_);
  return settled_;
}

bool WatchedWork::isSuccess() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return settled_ && failure_.empty();
}

std::exception_ptr WatchedWork::exception() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return failure_.empty() ? nullptr : std::make_exception_ptr(std::runtime_error(failure_));
}

bool WatchedWork::wait(Milliseconds timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (inner_ && !watch_->hasCheck()) {
    // On a device: the stream waits, and this thread does not.
    auto inner = inner_;
    lock.unlock();
    return inner->wait(timeout);
  }
  const auto done = [this] { return settled_; };
  if (timeout == kNoTimeout) {
    cv_.wait(lock, done);
  } else if (!cv_.wait_for(lock, timeout, done)) {
    throw std::runtime_error(
        c10::str(text, ": expected an end within ", seconds(timeout), ", but it is still going on"));
  }
  if (!failure_.empty()) throw std::runtime_error(failure_);
  return true;
}

std::string WatchedWork::because(const std::string& cause) const {
  const bool isLate = cause.find("imed out") != std::string::npos;
  if (cause.find("onnection closed by peer") != std::string::npos) {
    return c10::str(text, ": another rank closed the connection");
  }
  return c10::str(text, ": ", isLate ? "timed out after " + seconds(timeout) : cause);
}

void WatchedWork::synchronize() { wait(); }

void WatchedWork::abort() { watch_->abort(text + " was aborted"); }

void WatchedWork::listen(Listener listener) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!settled_) {
      listeners_.push_back(std::move(listener));
      watch_->wake();
      return;
    }
  }
  listener(failure_.empty() ? nullptr : &failure_);
}

void WatchedWork::settle(const std::string* failure) {
  auto self = c10::intrusive_ptr<WatchedWork>::unsafe_reclaim_from_nonowning(this);
  std::vector<Listener> listeners;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (settled_) return;
    settled_ = true;
    if (failure != nullptr) failure_ = *failure;
    listeners.swap(listeners_);
  }
  cv_.notify_all();
  watch_->forget(*this);
  if (failure == nullptr) {
    future_->markCompleted(c10::IValue(tensors_));
  } else {
    future_->setErrorIfNeeded(std::make_exception_ptr(std::runtime_error(*failure)));
  }
  for (const auto& listener : listeners) listener(failure);
}

void WatchedWork::started(c10::intrusive_ptr<c10d::Work> inner) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    inner_ = inner;
  }
  if (!watch_->hasCheck()) return;
  auto self = c10::intrusive_ptr<WatchedWork>::unsafe_reclaim_from_nonowning(this);
  inner->getFuture()->addCallback([self](c10::ivalue::Future& future) {
    if (future.hasError()) {
      self->watch_->suspect(self->because(messageOf(future.exception_ptr())), Search::Late);
      return;
    }
    try {
      if (self->finish) self->finish();
      self->settle(nullptr);
    } catch (...) {
      self->watch_->suspect(self->because(messageOf(std::current_exception())), Search::Nobody);
    }
  });
}

void WatchedWork::poll() {
  c10::intrusive_ptr<c10d::Work> inner;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    inner = inner_;
  }
  if (!inner || !inner->isCompleted()) return;
  if (const auto exception = inner->exception()) {
    watch_->suspect(because(messageOf(exception)), Search::Late);
  } else {
    settle(nullptr);
  }
}

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
    store_->set(key(rank), bytes(job.signature.text));
  }
  const int64_t first = hashes.const_data_ptr<int64_t>()[0];
  int other = 0;
  while (other < size && hashes.const_data_ptr<int64_t>()[other] == first) ++other;
  const auto said = [&](int rank) { return read(key(rank), kGrace).value_or("something else"); };
  throw Disagreement(c10::str("expected all ranks to ask for the same, but rank 0 asks for ", said(0), " and rank ",
                              other, " for ", said(other)));
}

// --- the monitor: notices failures here and elsewhere, and finds out whose they are

bool Watch::waitUntil(Milliseconds patience, const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(20ms);
  }
  return true;
}

std::optional<std::string> Watch::read(const std::string& key, Milliseconds patience) {
  const bool there = waitUntil(patience, [&] {
    std::lock_guard<std::mutex> lock(storeMutex_);
    return store_->check({key});
  });
  if (!there) return std::nullopt;
  std::lock_guard<std::mutex> lock(storeMutex_);
  return text(store_->get(key));
}

void Watch::findDeadlines() {
  std::vector<Work> works;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    works = pending_;
  }
  const auto now = std::chrono::steady_clock::now();
  for (const auto& work : works) {
    if (!checks_) work->poll();
    if (now > work->deadline && !work->isCompleted()) {
      suspect(work->because("timed out"), work->number == 0 ? Search::Missing : Search::Late);
    }
  }
}

void Watch::monitor() {
  try {
    for (;;) {
      bool suspects;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        // On a device works are polled: there is no hook that tells of their end.
        const auto pause = !checks_ && !pending_.empty() ? Milliseconds(1) : Milliseconds(kLook);
        changed_.wait_for(lock, pause, [this] { return stopping_ || failed_ || !suspicion_.empty(); });
        if (stopping_ || failed_) return;
        suspects = !suspicion_.empty();
      }
      if (!suspects) findDeadlines();
      if (!suspects && size > 1) {
        std::lock_guard<std::mutex> lock(storeMutex_);
        suspects = store_->check({"suspicion"});
      }
      if (suspects) return diagnose();
    }
  } catch (...) {
    std::string cause;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;
      cause = suspicion_.empty() ? "" : suspicion_.substr(1);
    }
    fail(c10::str(cause.empty() ? "" : cause + "; ",
                  "rank 0, whose process keeps the store of the group, does not answer: it has ended or cannot be "
                  "reached"));
  }
}

void Watch::diagnose() {
  std::string mine;
  Standing standing;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    mine = suspicion_;
    standing = {launched_, lastText_};
  }
  std::string agreed = mine.empty() ? mine : mine.substr(1);
  if (size > 1) {
    {
      std::lock_guard<std::mutex> lock(storeMutex_);
      if (!mine.empty()) store_->compareSet("suspicion", bytes(""), bytes(mine));
      store_->set(stateKey(rank), bytes(c10::str(standing.launched, "|", standing.last)));
    }
    const std::string suspicion = read("suspicion", kGrace).value_or(mine);
    const auto search = suspicion.empty() ? Search::Late : static_cast<Search>(suspicion[0]);
    const std::string verdict = verdictOf(suspicion.empty() ? "an unknown failure" : suspicion.substr(1), search);
    std::lock_guard<std::mutex> lock(storeMutex_);
    agreed = text(store_->compareSet("verdict", bytes(""), bytes(verdict)));
    store_->add("heard", 1);
  }
  if (rank == 0 && size > 1) {
    // The store goes with this process: the others are to read the verdict before.
    waitUntil(kGrace, [this] {
      std::lock_guard<std::mutex> lock(storeMutex_);
      return store_->add("heard", 0) >= store_->add("answering", 0);
    });
  }
  fail(agreed);
}

std::string Watch::verdictOf(const std::string& suspicion, Search search) {
  {
    std::lock_guard<std::mutex> lock(storeMutex_);
    store_->add("answering", 1);
  }
  if (search == Search::Nobody) return suspicion;
  std::vector<std::string> findings;
  std::vector<std::pair<int, Standing>> answers;
  const auto end = std::chrono::steady_clock::now() + kGrace;
  uint64_t furthest = 0;
  for (int each = 0; each < size; ++each) {
    const auto left = std::chrono::duration_cast<Milliseconds>(end - std::chrono::steady_clock::now());
    const auto state = read(stateKey(each), std::max(left, Milliseconds(0)));
    if (!state) {
      findings.push_back(
          c10::str("rank ", each, " does not answer: its process has ended, was stopped, or cannot be reached"));
    } else if (*state == "left") {
      findings.push_back(c10::str("rank ", each, " has left the group"));
    } else {
      answers.emplace_back(each, standingOf(*state));
      furthest = std::max(furthest, answers.back().second.launched);
    }
  }
  if (findings.empty() && search == Search::Late) {
    uint64_t last = furthest;
    for (const auto& [each, standing] : answers) last = std::min(last, standing.launched);
    for (const auto& [each, standing] : answers) {
      if (standing.launched != last || last == furthest) continue;
      findings.push_back(c10::str("rank ", each, " has not come to it: the last collective that it came to is number ",
                                  standing.launched, " (", standing.last, "), and others are at number ", furthest));
    }
  }
  return findings.empty() ? suspicion : suspicion + "; " + join(findings);
}

void Watch::leave(Milliseconds patience) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (failed_ || stopping_ || size == 1) return;
  }
  try {
    {
      std::lock_guard<std::mutex> lock(storeMutex_);
      store_->set(stateKey(rank), bytes("left"));
    }
    const auto end = std::chrono::steady_clock::now() + patience;
    const auto rest = [&] {
      const auto left = std::chrono::duration_cast<Milliseconds>(end - std::chrono::steady_clock::now());
      return std::max(left, Milliseconds(0));
    };
    const auto given = [this] {
      std::lock_guard<std::mutex> lock(mutex_);
      return failed_;
    };
    for (int each = 0; each < size && !given(); ++each) read(stateKey(each), rest());
    {
      std::lock_guard<std::mutex> lock(storeMutex_);
      store_->add("gone", 1);
    }
    if (rank == 0) {
      waitUntil(rest(), [&] {
        std::lock_guard<std::mutex> lock(storeMutex_);
        return given() || store_->add("gone", 0) >= size;
      });
    }
  } catch (const std::exception&) {
    // The store has gone first: there is nobody left to tell.
  }
}

}  // namespace cleft
