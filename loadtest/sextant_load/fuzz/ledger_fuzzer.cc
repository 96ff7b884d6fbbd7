// Fuzzes ledger files: one that parses is checked, and is the same after it was written again.
#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/check.h"
#include "loadtest/sextant_load/ledger_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace load = sextant::load;
  const auto ledger = load::ParseLedger(std::string(reinterpret_cast<const char*>(data), size));
  if (!ledger.ok() || ledger->planned_count > 100'000) return 0;
  (void)load::CheckLedger(*ledger);
  const std::string text = load::LedgerText(*ledger);
  const auto again = load::ParseLedger(text);
  SEXTANT_CHECK(again.ok() && load::LedgerText(*again) == text);
  return 0;
}
