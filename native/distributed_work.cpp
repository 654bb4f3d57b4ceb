// One collective on its way: who waits for it, and how it ends.
#include "distributed_watch.hpp"

namespace cleft {

namespace {

// "[path/pair.cc:123] What happened\nException raised from ...": only what happened.
std::string plain(const std::string& message) {
  const size_t end = message.find('\n');
  std::string line = message.substr(0, end);
  const size_t bracket = line.find("] ");
  return !line.empty() && line[0] == '[' && bracket != std::string::npos ? line.substr(bracket + 2) : line;
}

}  // namespace

std::string shownSeconds(Milliseconds time) {
  const auto tenths = (time.count() + 50) / 100;
  return tenths % 10 == 0 ? c10::str(tenths / 10, " s") : c10::str(tenths / 10, ".", tenths % 10, " s");
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
        c10::str(text, ": expected an end within ", shownSeconds(timeout), ", but it is still going on"));
  }
  if (!failure_.empty()) throw std::runtime_error(failure_);
  return true;
}

std::string WatchedWork::because(const std::string& cause) const {
  const bool isLate = cause.find("imed out") != std::string::npos;
  // Gloo's own words go on at length; who it was is found out by the monitor.
  if (cause.find("onnection closed by peer") != std::string::npos ||
      cause.find("onnection reset by peer") != std::string::npos) {
    return c10::str(text, ": another rank closed the connection");
  }
  return c10::str(text, ": ", isLate ? "timed out after " + shownSeconds(timeout) : cause);
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

}  // namespace cleft
