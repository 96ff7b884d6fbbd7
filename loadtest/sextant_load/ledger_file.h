// A ledger as a file: one JSON object a line, the first of them about the run, each further one an attempt.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "loadtest/sextant_load/ledger.h"

namespace sextant::load {

// UNAVAILABLE / LEDGER_NOT_WRITTEN.
absl::Status WriteLedger(const Ledger& ledger, const std::string& path);

// INVALID_ARGUMENT / LEDGER_MALFORMED, its message naming the line; NOT_FOUND / LEDGER_NOT_FOUND.
absl::StatusOr<Ledger> ReadLedger(const std::string& path);

// The text of such a file.
std::string LedgerText(const Ledger& ledger);
absl::StatusOr<Ledger> ParseLedger(const std::string& text);

}  // namespace sextant::load
