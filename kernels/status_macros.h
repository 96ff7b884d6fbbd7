// Macros that pass an error status on to the caller.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define SEXTANT_RETURN_IF_ERROR(expression)                   \
  do {                                                        \
    if (absl::Status status_ = (expression); !status_.ok()) { \
      return status_;                                         \
    }                                                         \
  } while (false)

#define SEXTANT_CONCAT_INNER_(a, b) a##b
#define SEXTANT_CONCAT_(a, b) SEXTANT_CONCAT_INNER_(a, b)

// SEXTANT_ASSIGN_OR_RETURN(auto x, Compute()): x = the value, or return the status.
#define SEXTANT_ASSIGN_OR_RETURN(lhs, expression) \
  SEXTANT_ASSIGN_OR_RETURN_INNER_(SEXTANT_CONCAT_(status_or_, __LINE__), lhs, expression)
#define SEXTANT_ASSIGN_OR_RETURN_INNER_(temporary, lhs, expression) \
  auto temporary = (expression);                                    \
  if (!temporary.ok()) return std::move(temporary).status();        \
  lhs = *std::move(temporary)
