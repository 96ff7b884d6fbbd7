// CHECK macros for broken invariants: they print the condition and end the process.
#pragma once

#include <cstdio>
#include <cstdlib>

#define SEXTANT_CHECK(condition)                                                         \
  do {                                                                                   \
    if (!(condition)) [[unlikely]] {                                                     \
      std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

#define SEXTANT_CHECK_EQ(a, b) SEXTANT_CHECK((a) == (b))
#define SEXTANT_CHECK_LE(a, b) SEXTANT_CHECK((a) <= (b))
#define SEXTANT_CHECK_LT(a, b) SEXTANT_CHECK((a) < (b))
#define SEXTANT_CHECK_GE(a, b) SEXTANT_CHECK((a) >= (b))
