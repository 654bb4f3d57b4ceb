// Notices that something went wrong in a group, here or elsewhere, and finds out together with the other ranks whose
// fault it is.
#include <algorithm>

#include "distributed_watch.hpp"

namespace cleft {

using namespace std::chrono_literals;

namespace {

// How often the monitor looks into the store: the store of a large job stays idle, and a failure is known soon enough.
constexpr auto kLook = 200ms;

std::string join(const std::vector<std::string>& parts) {
  std::string all;
  for (const auto& part : parts) all += (all.empty() ? "" : "; ") + part;
  return all;
}

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
  return textOf(store_->get(key));
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
      if (!mine.empty()) store_->compareSet("suspicion", bytesOf(""), bytesOf(mine));
      store_->set(stateKey(rank), bytesOf(c10::str(standing.launched, "|", standing.last)));
    }
    const std::string suspicion = read("suspicion", kGrace).value_or(mine);
    const auto search = suspicion.empty() ? Search::Late : static_cast<Search>(suspicion[0]);
    const std::string verdict = verdictOf(suspicion.empty() ? "an unknown failure" : suspicion.substr(1), search);
    std::lock_guard<std::mutex> lock(storeMutex_);
    agreed = textOf(store_->compareSet("verdict", bytesOf(""), bytesOf(verdict)));
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
      store_->set(stateKey(rank), bytesOf("left"));
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
