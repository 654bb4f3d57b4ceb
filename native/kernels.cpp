#include "kernels.hpp"

#include <ATen/Version.h>

#include <string>

namespace cleft {

const Kernels* kernels() {
  static const Kernels* chosen = [] {
    const std::string capability = at::get_cpu_capability();
    if (capability == "AVX512") return kernelsOfAvx512();
    return capability == "AVX2" ? kernelsOfAvx2() : nullptr;
  }();
  return chosen;
}

}  // namespace cleft
