// What a group knows of itself and of its other ranks: which collectives are on their way, and, when one fails, why.
#pragma once

#include <map>
#include <optional>
#include <tuple>

#include "distributed_group.hpp"

namespace cleft {

// Whom to look for when something went wrong: nobody, ranks that do not answer, or also those that are behind.
enum class Search : char { Nobody = '0', Missing = '1', Late = '2' };

// How long a rank may take to say where it is, when it is asked.
constexpr std::chrono::seconds kGrace(3);

// "1.5 s"
std::string shownSeconds(Milliseconds time);
// What happened, without where in libtorch or Gloo.
std::string messageOf(const std::exception_ptr& exception);
// Values of the store.
inline std::vector<uint8_t> bytesOf(const std::string& text) { return {text.begin(), text.end()}; }
inline std::string textOf(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

// Ranks that ask for different things: the words say it all.
struct Disagreement : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Watch : public std::enable_shared_from_this<Watch> {
 public:
  using Run = std::function<c10::intrusive_ptr<c10d::Work>(c10d::Backend&)>;
  using Work = c10::intrusive_ptr<WatchedWork>;

  // `store`: a connection of the watch's own, which nobody else waits on. `check`: a backend over which the ranks
  // compare what they are about to do, or null where that is not needed.
  Watch(c10::intrusive_ptr<c10d::Store> store, c10::intrusive_ptr<c10d::Backend> inner,
        c10::intrusive_ptr<c10d::Backend> check, int rank, int size, Milliseconds timeout);

  void start();
  // Ends the threads, and lets go of the backends: at once where nothing is under way, never where something is.
  void stop();
  void launch(const Work& work, Signature signature, Run run);
  void forget(const WatchedWork& work);
  // Something went wrong here: the ranks find out together what, and the whole group fails.
  void suspect(const std::string& cause, Search search);
  void fail(const std::string& failure);
  void abort(const std::string& reason);
  void leave(Milliseconds patience);
  // Wakes the monitor, for works that have to be polled.
  void wake();
  void checkAlive();
  uint64_t nextNumber(const std::string& text);

  const int rank;
  const int size;
  const Milliseconds timeout;
  bool hasCheck() const { return checks_; }
  const c10::intrusive_ptr<c10d::Backend>& inner() const { return inner_; }

 private:
  struct Job {
    Work work;
    Signature signature;
    Run run;
  };
  using LaneKey = std::tuple<bool, int, int>;  // whether it receives, peer, tag
  struct Lane {
    std::deque<Job> jobs;
    bool running = false;
  };

  void monitor();
  void dispatch();
  void runLane(const LaneKey& key);
  void pass(const Job& job);
  void perform(const Job& job);
  void checkSignature(const Job& job);
  void explainDifference(const Job& job, const at::Tensor& hashes);
  void await(const c10::intrusive_ptr<c10d::Work>& work);
  void findDeadlines();
  void diagnose();
  std::string verdictOf(const std::string& suspicion, Search search);
  std::string stateKey(int rank) const { return c10::str("state/", rank); }
  std::optional<std::string> read(const std::string& key, Milliseconds patience);
  bool waitUntil(Milliseconds patience, const std::function<bool()>& condition);

  c10::intrusive_ptr<c10d::Store> store_;
  c10::intrusive_ptr<c10d::Backend> inner_, check_;
  const bool checks_;
  std::mutex storeMutex_;  // the monitor, the dispatcher and leave() share the connection

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false, failed_ = false;
  int running_ = 0;  // threads
  std::string failure_;
  std::string suspicion_;  // whom to search, as a letter, and what happened
  std::string lastText_ = "none yet";
  uint64_t launched_ = 0;
  std::vector<Work> pending_;
  std::deque<Job> jobs_;
  std::map<LaneKey, Lane> lanes_;
};

}  // namespace cleft
