#include "profiler.hpp"

#include <ATen/record_function.h>

#include <chrono>
#include <mutex>
#include <unordered_map>

#include "boundary.hpp"
#include "convert.hpp"

namespace cleft {

namespace {

using Clock = std::chrono::steady_clock;

struct Spent {
  int64_t calls = 0;
  Clock::duration total{}, self{};
};

// One at a time in the process: libtorch calls observers on every thread that runs operators.
struct Profiler {
  std::mutex mutex;
  bool isRunning = false;
  at::CallbackHandle handle = 0;
  std::unordered_map<std::string, Spent> operators;
};

Profiler& profiler() {
  static Profiler one;
  return one;
}

// An operator that runs on this thread, and what those took that it called.
struct Running : at::ObserverContext {
  Running* outer;
  Clock::time_point started;
  Clock::duration inner{};
};

thread_local Running* innermost = nullptr;

std::unique_ptr<at::ObserverContext> started(const at::RecordFunction&) {
  auto running = std::make_unique<Running>();
  running->outer = innermost;
  innermost = running.get();
  running->started = Clock::now();
  return running;
}

void ended(const at::RecordFunction& function, at::ObserverContext* context) {
  auto* running = static_cast<Running*>(context);
  if (running == nullptr) return;
  const Clock::duration total = Clock::now() - running->started;
  innermost = running->outer;
  if (innermost != nullptr) innermost->inner += total;
  const std::lock_guard lock(profiler().mutex);
  if (!profiler().isRunning) return;
  Spent& spent = profiler().operators[function.name()];
  spent.calls += 1;
  spent.total += total;
  spent.self += total - running->inner;
}

// startProfiler(): false where one runs already
Napi::Value startProfiler(Environment&, const Napi::CallbackInfo& info) {
  const std::lock_guard lock(profiler().mutex);
  if (profiler().isRunning) return Napi::Boolean::New(info.Env(), false);
  profiler().operators.clear();
  profiler().isRunning = true;
  profiler().handle = at::addGlobalCallback(at::RecordFunctionCallback(started, ended));
  return Napi::Boolean::New(info.Env(), true);
}

double millisecondsOf(Clock::duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

// stopProfiler(): [name, calls, total, self] of each operator, in milliseconds
Napi::Value stopProfiler(Environment&, const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const std::lock_guard lock(profiler().mutex);
  Napi::Array rows = Napi::Array::New(env);
  if (!profiler().isRunning) return rows;
  at::removeCallback(profiler().handle);
  profiler().isRunning = false;
  uint32_t next = 0;
  for (const auto& [name, spent] : profiler().operators) {
    Napi::Array row = Napi::Array::New(env, 4);
    row[0u] = Napi::String::New(env, name);
    row[1u] = Napi::Number::New(env, static_cast<double>(spent.calls));
    row[2u] = Napi::Number::New(env, millisecondsOf(spent.total));
    row[3u] = Napi::Number::New(env, millisecondsOf(spent.self));
    rows[next++] = row;
  }
  profiler().operators.clear();
  return rows;
}

}  // namespace

void defineProfiler(Napi::Object exports, Environment& environment) {
  define<startProfiler>(exports, environment, "startProfiler", "profiler");
  define<stopProfiler>(exports, environment, "stopProfiler", "profiler");
}

}  // namespace cleft
