#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLEFT_TARGET __attribute__((target("avx2,fma")))
#define CLEFT_WIDTH 8
#include "kernels_body.hpp"

const cleft::Kernels* cleft::kernelsOfAvx2() { return &table; }
#else
#include "kernels.hpp"

const cleft::Kernels* cleft::kernelsOfAvx2() { return nullptr; }
#endif
