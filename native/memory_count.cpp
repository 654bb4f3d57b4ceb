#include "memory_count.hpp"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>

#include "boundary.hpp"

namespace cleft {

namespace {

// libtorch's CPU allocator reports here, on the thread that allocates or frees; memory that was there before is not
// known to it, and its freeing not reported.
class MemoryCount : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device device) override {
    if (!device.is_cpu()) return;
    current_ += size;
    peak_ = std::max(peak_, current_);
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t current() const { return current_; }
  int64_t peak() const { return peak_; }
  void resetPeak() { peak_ = current_; }

 private:
  int64_t current_ = 0, peak_ = 0;
};

// An enumeration up to libtorch 2.12, a class after.
auto kind() { return c10::DebugInfoKind::PROFILER_STATE; }

MemoryCount* counting() { return dynamic_cast<MemoryCount*>(c10::ThreadLocalDebugInfo::get(kind())); }

MemoryCount& countingOrError(const char* operation) {
  auto* count = counting();
  if (count == nullptr) rangeError(operation, ": expected a count that was started, and there is none");
  return *count;
}

Napi::Value startMemoryCount(Environment&, const Napi::CallbackInfo& info) {
  if (c10::ThreadLocalDebugInfo::get(kind()) != nullptr) {
    rangeError("startMemoryCount: expected no other count or profiler in this thread, and there is one; stop it first");
  }
  c10::ThreadLocalDebugInfo::_push(kind(), std::make_shared<MemoryCount>());
  return info.Env().Undefined();
}

// memoryCount(resetPeak): {current, peak} in bytes since the start; the peak begins anew where that is asked for
Napi::Value memoryCount(Environment&, const Napi::CallbackInfo& info) {
  auto& count = countingOrError("memoryCount");
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("current", static_cast<double>(count.current()));
  result.Set("peak", static_cast<double>(count.peak()));
  if (info[0].ToBoolean().Value()) count.resetPeak();
  return result;
}

Napi::Value stopMemoryCount(Environment&, const Napi::CallbackInfo& info) {
  countingOrError("stopMemoryCount");
  c10::ThreadLocalDebugInfo::_pop(kind());
  return info.Env().Undefined();
}

}  // namespace

void defineMemoryCount(Napi::Object exports, Environment& environment) {
  define<startMemoryCount>(exports, environment, "startMemoryCount");
  define<memoryCount>(exports, environment, "memoryCount");
  define<stopMemoryCount>(exports, environment, "stopMemoryCount");
}

}  // namespace cleft
