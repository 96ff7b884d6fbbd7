// A lease whose rows have all arrived.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "sextant/internal/v1/plan.pb.h"

namespace sextant {

struct Lease {
  int64_t id = 0;
  std::string capture;     // 16 bytes
  std::string request_id;  // this and the next: of the call, for the log
  std::string trace_id;
  internal::v1::CaptureSpec spec;
  std::string spec_key;  // equal exactly when specs are laid out and decoded alike
  std::vector<int32_t> positions;
  std::vector<int32_t> target_ids;  // one of each position
  std::string data;                 // the positions' payloads, joined
  absl::Time arrived;               // when the last of them came

  int64_t row_count() const { return static_cast<int64_t>(positions.size()) * spec.rows_size(); }
};

}  // namespace sextant
