// libtorch takes the memory of CPU tensors from the C library, whose heap is torn by a training step: tensors of some
// sizes leave holes that those of others do not fill, and in bfloat16, where sizes are of two types, it holds 40 % more
// than its tensors ever took. Given back to the system each time, the pages of a step cost a fifth of its time. Here
// large tensors take whole pages from ranges that tensors before them left, split and joined as needed, and no more is
// kept than what the tensors alive at once ever took.
#include "cpu_cache.hpp"

#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>

#include "boundary.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace cleft {

namespace {

#ifdef __linux__

constexpr size_t pageBytes = 4096;
// Below it memory is the C library's.
constexpr size_t leastBytes = 1 << 20;
// More than there is.
constexpr size_t mostBytes = size_t{1} << 48;

class CpuCache : public c10::Allocator {
 public:
  explicit CpuCache(c10::Allocator& small) : small_(small) {}

  c10::DataPtr allocate(size_t count) override {
    void* memory = count < leastBytes || count > mostBytes ? nullptr : take(roundedUp(count));
    if (memory == nullptr) {
      // small, or an error that says how much was wanted
      c10::DataPtr other = small_.allocate(count);
      memory = other.release_context();
    } else {
      c10::profiledCPUMemoryReporter().New(memory, count);
    }
    return {memory, memory, &CpuCache::free, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &CpuCache::free; }

  void copy_data(void* to, const void* from, size_t count) const override { std::memcpy(to, from, count); }

  // Gives all that no tensor holds back to the system.
  void empty() {
    const std::lock_guard lock(mutex_);
    release(kept_);
  }

  static CpuCache* instance;

 private:
  static size_t roundedUp(size_t count) { return (count + pageBytes - 1) / pageBytes * pageBytes; }

  static void free(void* memory) {
    // the C library's is seldom at a page's beginning
    if (reinterpret_cast<uintptr_t>(memory) % pageBytes == 0 && instance->give(static_cast<char*>(memory))) return;
    instance->small_.raw_deleter()(memory);
  }

  void* take(size_t size) {
    const std::lock_guard lock(mutex_);
    char* memory = fromKept(size);
    if (memory == nullptr) memory = fromSystem(size);
    if (memory == nullptr) return nullptr;
    live_[memory] = size;
    used_ += size;
    most_ = std::max(most_, used_);
    return memory;
  }

  // The smallest range that is large enough; its end stays.
  char* fromKept(size_t size) {
    const auto found = bySize_.lower_bound({size, nullptr});
    if (found == bySize_.end()) return nullptr;
    const auto [whole, memory] = *found;
    forget(memory, whole);
    if (whole > size) keep(memory + size, whole - size);
    return memory;
  }

  char* fromSystem(size_t size) {
    const size_t most = std::max(most_, used_ + size);
    if (used_ + size + kept_ > most) release(used_ + size + kept_ - most);
    void* memory = map(size);
    if (memory == MAP_FAILED) {
      release(kept_);
      memory = map(size);
    }
    return memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
  }

  static void* map(size_t size) {
    return mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }

  // The largest ranges first, in few calls: so many bytes.
  void release(size_t wanted) {
    while (wanted > 0 && !bySize_.empty()) {
      const auto [size, memory] = *bySize_.rbegin();
      const size_t released = std::min(size, roundedUp(wanted));
      // refused where the system has no room to note two ranges for one
      if (munmap(memory + (size - released), released) != 0) return;
      forget(memory, size);
      if (size > released) keep(memory, size - released);
      wanted -= std::min(wanted, released);
    }
  }

  // Whether the memory is one of these tensors'.
  bool give(char* memory) {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(memory);
    if (found == live_.end()) return false;
    c10::profiledCPUMemoryReporter().Delete(memory);
    const size_t size = found->second;
    live_.erase(found);
    used_ -= size;
    keep(memory, size);
    return true;
  }

  // Joined with the ranges beside it.
  void keep(char* memory, size_t size) {
    const auto next = ranges_.lower_bound(memory);
    if (next != ranges_.begin()) {
      const auto [before, length] = *std::prev(next);
      if (before + length == memory) {
        forget(before, length);
        memory = before;
        size += length;
      }
    }
    if (next != ranges_.end() && next->first == memory + size) {
      const auto [after, length] = *next;
      forget(after, length);
      size += length;
    }
    ranges_[memory] = size;
    bySize_.insert({size, memory});
    kept_ += size;
  }

  void forget(char* memory, size_t size) {
    ranges_.erase(memory);
    bySize_.erase({size, memory});
    kept_ -= size;
  }

  c10::Allocator& small_;
  std::mutex mutex_;
  std::unordered_map<char*, size_t> live_;
  std::map<char*, size_t> ranges_;
  std::set<std::pair<size_t, char*>> bySize_;
  // bytes: of tensors, of ranges, and the most that the first ever was
  size_t used_ = 0, kept_ = 0, most_ = 0;
};

CpuCache* CpuCache::instance = nullptr;

void install() {
  const char* wanted = std::getenv("CLEFT_CPU_CACHE");
  if (CpuCache::instance != nullptr || (wanted != nullptr && std::strcmp(wanted, "off") == 0)) return;
  CpuCache::instance = new CpuCache(*c10::GetCPUAllocator());
  c10::SetCPUAllocator(CpuCache::instance, 1);
}

void empty() {
  if (CpuCache::instance != nullptr) CpuCache::instance->empty();
}

#else

void install() {}
void empty() {}

#endif

Napi::Value emptyCpuCache(Environment&, const Napi::CallbackInfo& info) {
  empty();
  return info.Env().Undefined();
}

}  // namespace

void defineCpuCache(Napi::Object exports, Environment& environment) {
  static std::once_flag installed;
  std::call_once(installed, install);
  define<emptyCpuCache>(exports, environment, "emptyCpuCache");
}

}  // namespace cleft
