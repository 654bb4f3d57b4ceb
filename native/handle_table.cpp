#include "handle_table.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <random>
#include <unordered_set>

namespace cleft {

HandleTable::HandleTable() {
  // Another start in each environment: a handle that strayed from another worker does not fit here.
  firstGeneration_ = 1 + std::random_device{}() % (1u << 20);
}

double HandleTable::add(at::Tensor tensor) {
  uint32_t index;
  if (free_.empty()) {
    TORCH_CHECK(slots_.size() < kMaximumLive, "expected at most ", kMaximumLive,
                " live tensors, but that many are alive: dispose of some, or work inside torch.scope()");
    index = static_cast<uint32_t>(slots_.size());
    slots_.push_back({std::move(tensor), firstGeneration_, 0});
  } else {
    index = free_.back();
    free_.pop_back();
    slots_[index].tensor = std::move(tensor);
    slots_[index].scope = 0;
  }
  ++made_;
  Slot& slot = slots_[index];
  const double handle = static_cast<double>((static_cast<uint64_t>(slot.generation) << kIndexBits) | index);
  if (!active_.empty()) {
    slot.scope = active_.back()->id;
    active_.back()->entries.push_back(handle);
  }
  return handle;
}

const HandleTable::Slot* HandleTable::locate(double handle) const {
  if (!(handle >= 0 && handle < 9007199254740992.0)) return nullptr;
  const auto bits = static_cast<uint64_t>(handle);
  if (static_cast<double>(bits) != handle) return nullptr;
  const auto index = static_cast<uint32_t>(bits & (kMaximumLive - 1));
  if (index >= slots_.size()) return nullptr;
  const Slot& slot = slots_[index];
  if (slot.generation != bits >> kIndexBits || !slot.tensor.defined()) return nullptr;
  return &slot;
}

void HandleTable::releaseSlot(uint32_t index) {
  Slot& slot = slots_[index];
  // The destructor may run arbitrary code (a graph's callbacks): the slot is put in order first.
  at::Tensor dying = std::move(slot.tensor);
  slot.tensor.reset();
  slot.scope = 0;
  ++freed_;
  if (slot.generation == kLastGeneration) {
    slot.generation = 0;  // never reused: its handles could otherwise come round again
    ++retired_;
  } else {
    ++slot.generation;
    free_.push_back(index);
  }
}

bool HandleTable::release(double handle) {
  if (locate(handle) == nullptr) return false;
  releaseSlot(static_cast<uint32_t>(static_cast<uint64_t>(handle) & (kMaximumLive - 1)));
  return true;
}

bool HandleTable::keep(double handle) {
  Slot* slot = locate(handle);
  if (slot == nullptr) return false;
  slot->scope = 0;
  return true;
}

uint32_t HandleTable::nextScopeId() {
  if (++scopeIds_ == 0) ++scopeIds_;
  return scopeIds_;
}

void HandleTable::enterScope() {
  std::unique_ptr<Scope> scope;
  if (pool_.empty()) {
    scope = std::make_unique<Scope>();
  } else {
    scope = std::move(pool_.back());
    pool_.pop_back();
  }
  scope->id = nextScopeId();
  scope->isObject = false;
  active_.push_back(scope.release());
}

void HandleTable::hand(Scope* to, const std::vector<double>& kept, uint32_t from) {
  for (double handle : kept) {
    Slot* slot = locate(handle);
    if (slot == nullptr || slot->scope != from) continue;
    slot->scope = to == nullptr ? 0 : to->id;
    if (to != nullptr) to->entries.push_back(handle);
  }
}

void HandleTable::freeEntries(Scope& scope) {
  // By index: freeing a tensor may run code that adds entries.
  for (size_t k = 0; k < scope.entries.size(); ++k) {
    const Slot* slot = locate(scope.entries[k]);
    if (slot != nullptr && slot->scope == scope.id) releaseSlot(static_cast<uint32_t>(slot - slots_.data()));
  }
  scope.entries.clear();
}

void HandleTable::exitScope(const std::vector<double>& kept) {
  TORCH_CHECK(!active_.empty(), "expected an open scope to leave, but none is open");
  TORCH_CHECK(!active_.back()->isObject,
              "expected to leave a synchronous scope, but the innermost one is a Scope object");
  std::unique_ptr<Scope> scope(active_.back());
  active_.pop_back();
  hand(active_.empty() ? nullptr : active_.back(), kept, scope->id);
  freeEntries(*scope);
  if (scope->entries.capacity() <= 1 << 16 && pool_.size() < 64) pool_.push_back(std::move(scope));
}

uint32_t HandleTable::createScope() {
  auto scope = std::make_unique<Scope>();
  scope->id = nextScopeId();
  scope->isObject = true;
  const uint32_t id = scope->id;
  suspended_.emplace(id, std::move(scope));
  return id;
}

void HandleTable::resumeScope(uint32_t id) {
  const auto found = suspended_.find(id);
  TORCH_CHECK(found != suspended_.end(), "expected a Scope that was not disposed of, but this one was");
  active_.push_back(found->second.get());
}

void HandleTable::suspendScope(uint32_t id, const std::vector<double>& kept) {
  TORCH_CHECK(!active_.empty() && active_.back()->id == id, "expected the innermost scope to be the one that is left");
  active_.pop_back();
  hand(active_.empty() ? nullptr : active_.back(), kept, id);
  auto& entries = suspended_.at(id)->entries;
  // A long-lived scope must not remember every handle that died inside it.
  entries.erase(std::remove_if(entries.begin(), entries.end(),
                               [&](double handle) {
                                 const Slot* slot = locate(handle);
                                 return slot == nullptr || slot->scope != id;
                               }),
                entries.end());
}

bool HandleTable::disposeScope(uint32_t id) {
  const auto found = suspended_.find(id);
  if (found == suspended_.end()) return false;
  TORCH_CHECK(std::find(active_.begin(), active_.end(), found->second.get()) == active_.end(),
              "expected a Scope that is not running, but it was disposed of inside its own run()");
  auto scope = std::move(found->second);
  suspended_.erase(found);
  freeEntries(*scope);
  return true;
}

uint64_t HandleTable::bytes() const {
  std::unordered_set<const void*> seen;
  uint64_t total = 0;
  for (const Slot& slot : slots_) {
    if (!slot.tensor.defined() || !slot.tensor.has_storage()) continue;
    const auto& storage = slot.tensor.storage();
    if (seen.insert(storage.unsafeGetStorageImpl()).second) total += storage.nbytes();
  }
  return total;
}

std::vector<double> HandleTable::handles() const {
  std::vector<double> all;
  for (uint32_t index = 0; index < slots_.size(); ++index) {
    if (slots_[index].tensor.defined()) {
      all.push_back(static_cast<double>((static_cast<uint64_t>(slots_[index].generation) << kIndexBits) | index));
    }
  }
  return all;
}

void HandleTable::clear() {
  for (Scope* scope : active_) {
    if (!scope->isObject) delete scope;
  }
  active_.clear();
  suspended_.clear();
  for (uint32_t index = 0; index < slots_.size(); ++index) {
    if (slots_[index].tensor.defined()) releaseSlot(index);
  }
}

}  // namespace cleft
