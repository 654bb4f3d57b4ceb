// Integer handles for tensors. A handle is generation * 2^22 + index, a whole number below 2^53, so a stale or invented
// one is found out and never reaches another tensor. Scopes are lists of the handles made while they were the
// innermost.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace cleft {

class HandleTable {
 public:
  static constexpr uint32_t kIndexBits = 22;
  static constexpr uint32_t kMaximumLive = 1u << kIndexBits;
  static constexpr uint32_t kLastGeneration = (1u << 31) - 1;

  HandleTable();

  double add(at::Tensor tensor);
  // Null for a stale, disposed or invented handle.
  const at::Tensor* find(double handle) const {
    const Slot* slot = locate(handle);
    return slot == nullptr ? nullptr : &slot->tensor;
  }
  bool release(double handle);
  // Takes a tensor out of every scope. True where the handle is alive.
  bool keep(double handle);

  void enterScope();
  // Frees what the innermost scope made; `kept` goes to the scope around it, or to none.
  void exitScope(const std::vector<double>& kept);
  uint32_t createScope();
  void resumeScope(uint32_t id);
  void suspendScope(uint32_t id, const std::vector<double>& kept);
  bool disposeScope(uint32_t id);
  size_t scopeDepth() const { return active_.size(); }

  uint64_t live() const { return slots_.size() - free_.size() - retired_; }
  uint64_t made() const { return made_; }
  uint64_t freed() const { return freed_; }
  // Bytes of the distinct storages behind the live handles.
  uint64_t bytes() const;
  std::vector<double> handles() const;
  void clear();

 private:
  struct Slot {
    at::Tensor tensor;
    uint32_t generation;  // 0 once retired
    uint32_t scope;       // id of the scope that frees it, 0 for none
  };
  struct Scope {
    uint32_t id;
    bool isObject;  // a Scope object of the user's, not a synchronous scope()
    std::vector<double> entries;
  };

  const Slot* locate(double handle) const;
  Slot* locate(double handle) { return const_cast<Slot*>(static_cast<const HandleTable*>(this)->locate(handle)); }
  void releaseSlot(uint32_t index);
  void freeEntries(Scope& scope);
  void hand(Scope* to, const std::vector<double>& kept, uint32_t from);
  uint32_t nextScopeId();

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::vector<Scope*> active_;
  std::vector<std::unique_ptr<Scope>> pool_;  // finished synchronous scopes, to be used again
  std::unordered_map<uint32_t, std::unique_ptr<Scope>> suspended_;
  uint32_t firstGeneration_;
  uint32_t scopeIds_ = 0;
  uint64_t made_ = 0, freed_ = 0, retired_ = 0;
};

}  // namespace cleft
