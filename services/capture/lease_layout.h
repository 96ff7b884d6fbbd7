// Which part of a position's payload a lens decoder needs.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "sextant/internal/v1/plan.pb.h"

namespace sextant {

// Cuts payloads down to the rows that the lens reports and the final row; the scales go along only where the
// lens uses them. Immutable.
class LeaseLayout {
 public:
  // REQUIRES: ValidateCaptureSpec(spec) and spec.has_lens().
  explicit LeaseLayout(const sextant::internal::v1::CaptureSpec& spec);

  // What decoders are told: the rows kept, with the lens's indices pointing into them.
  const sextant::internal::v1::CaptureSpec& spec() const { return spec_; }
  // Bytes of one position on its way to a decoder.
  int64_t position_bytes() const { return position_bytes_; }
  // Appends what is needed of a position's payload to `out`.
  void Append(absl::string_view payload, std::string& out) const;

 private:
  sextant::internal::v1::CaptureSpec spec_;
  // Byte ranges [offset, size) of the payload, in order; neighbours are joined.
  std::vector<std::pair<int64_t, int64_t>> ranges_;
  int64_t position_bytes_ = 0;
};

}  // namespace sextant
