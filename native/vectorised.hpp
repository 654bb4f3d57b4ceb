// Loops that the compiler turns into vector instructions, for the processor that it runs on.
#pragma once

// A multiplication and an addition are never contracted to one rounding: every clone computes the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLEFT_VECTORISED __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3", "fp-contract=off")))
#elif defined(__GNUC__) && !defined(__clang__)
#define CLEFT_VECTORISED __attribute__((optimize("O3", "fp-contract=off")))
#else
#define CLEFT_VECTORISED
#endif
#if defined(__clang__)
#pragma clang fp contract(off)
#endif

#if defined(__GNUC__)
#define CLEFT_INLINE __attribute__((always_inline)) inline
#else
#define CLEFT_INLINE inline
#endif
