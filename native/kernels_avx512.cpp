#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLEFT_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma")))
#define CLEFT_WIDTH 16
#include "kernels_body.hpp"

const cleft::Kernels* cleft::kernelsOfAvx512() { return &table; }
#else
#include "kernels.hpp"

const cleft::Kernels* cleft::kernelsOfAvx512() { return nullptr; }
#endif
