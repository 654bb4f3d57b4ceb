// A fence around every tensor's memory, for hunting: LD_PRELOAD of `g++ -O1 -shared -fPIC`. libtorch's allocator for the
// CPU is posix_memalign; here each block ends at a page that cannot be touched (FENCE_SIDE=low: begins after one), so that a
// kernel which reads or writes outside of its tensor is a SIGSEGV and not a wrong number. Freed blocks stay untouchable
// for long, and fresh ones are not zero.
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>

extern "C" void* __libc_memalign(size_t, size_t);
extern "C" void __libc_free(void*);

namespace {

constexpr size_t kPage = 4096;
constexpr int kClasses = 9;                 // blocks of 1, 2, 4 ... 256 pages
constexpr size_t kArena = size_t{1} << 30;  // of address space for each class
constexpr unsigned char kPoison = 0x9b;

std::mutex mutex;
char* arenas = nullptr;
uint32_t* rings[kClasses];  // free slots, first in first out
uint32_t heads[kClasses], counts[kClasses], capacities[kClasses];
uint32_t* sizes[kClasses];
bool low = false;
size_t alignment = 16;
uint32_t live = 0;
constexpr uint32_t kMost = 20000;  // two mappings each, of the 65,530 that a process may have

size_t slotBytes(int kind) { return ((size_t{1} << kind) + 1) * kPage; }

void* reserve(size_t bytes, int protection) {
  void* memory = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) abort();
  return memory;
}

void start() {
  const char* side = getenv("FENCE_SIDE");
  low = side != nullptr && strcmp(side, "low") == 0;
  if (const char* text = getenv("FENCE_ALIGN")) alignment = static_cast<size_t>(atoi(text));
  char* base = static_cast<char*>(reserve(kArena * kClasses + kPage, PROT_NONE));
  for (int kind = 0; kind < kClasses; ++kind) {
    capacities[kind] = counts[kind] = static_cast<uint32_t>(kArena / slotBytes(kind));
    rings[kind] = static_cast<uint32_t*>(reserve(capacities[kind] * sizeof(uint32_t), PROT_READ | PROT_WRITE));
    sizes[kind] = static_cast<uint32_t*>(reserve(capacities[kind] * sizeof(uint32_t), PROT_READ | PROT_WRITE));
    for (uint32_t k = 0; k < capacities[kind]; ++k) rings[kind][k] = k;
  }
  arenas = base + kPage;
}

[[noreturn]] void damaged(size_t size) {
  char text[160];
  const int length = snprintf(text, sizeof text, "fence: something wrote just beyond a block of %zu bytes\n", size);
  if (write(2, text, static_cast<size_t>(length)) < 0) {}
  abort();
}

}  // namespace

extern "C" int posix_memalign(void** result, size_t align, size_t size) {
  if (size == 0 || size > kPage << (kClasses - 1) || align > 64) {
    *result = __libc_memalign(align, size);
    return *result == nullptr ? ENOMEM : 0;
  }
  std::lock_guard<std::mutex> lock(mutex);
  if (arenas == nullptr) start();
  int kind = 0;
  while (kPage << kind < size) ++kind;
  if (counts[kind] == 0 || live == kMost) {
    *result = __libc_memalign(align, size);
    return *result == nullptr ? ENOMEM : 0;
  }
  const uint32_t slot = rings[kind][heads[kind]];
  heads[kind] = (heads[kind] + 1) % capacities[kind];
  counts[kind] -= 1;
  live += 1;
  sizes[kind][slot] = static_cast<uint32_t>(size);
  char* block = arenas + kArena * kind + slotBytes(kind) * slot;
  const size_t room = kPage << kind;
  if (mprotect(block, room, PROT_READ | PROT_WRITE) != 0) {
    // too many mappings: this one goes without a fence, and its slot is lost
    *result = __libc_memalign(align, size);
    return *result == nullptr ? ENOMEM : 0;
  }
  memset(block, kPoison, room);
  *result = low ? block : block + room - (size + alignment - 1) / alignment * alignment;
  return 0;
}

extern "C" void free(void* pointer) {
  char* at = static_cast<char*>(pointer);
  if (arenas == nullptr || at < arenas || at >= arenas + kArena * kClasses) {
    __libc_free(pointer);
    return;
  }
  std::lock_guard<std::mutex> lock(mutex);
  const int kind = static_cast<int>((at - arenas) / static_cast<ptrdiff_t>(kArena));
  const auto slot = static_cast<uint32_t>((at - arenas - kArena * kind) / slotBytes(kind));
  char* block = arenas + kArena * kind + slotBytes(kind) * slot;
  const size_t room = kPage << kind, size = sizes[kind][slot];
  for (char* byte = at + size; byte < block + room; ++byte) {
    if (static_cast<unsigned char>(*byte) != kPoison) damaged(size);
  }
  madvise(block, room, MADV_DONTNEED);
  mprotect(block, room, PROT_NONE);
  rings[kind][(heads[kind] + counts[kind]) % capacities[kind]] = slot;
  counts[kind] += 1;
  live -= 1;
}
