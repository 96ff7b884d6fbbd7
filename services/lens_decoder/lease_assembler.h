// Puts leases together from the messages that carry them.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/lens_decoder/lease.h"
#include "sextant/internal/v1/capture.pb.h"

namespace sextant {

// A lease that is to be given back, and why.
struct BadLease {
  int64_t id = 0;
  std::string request_id;
  std::string trace_id;
  absl::Status status;
};

// What an arriving lease turns out to be.
using ArrivedLease = std::variant<Lease, BadLease>;

// Threads: one.
class LeaseAssembler {
 public:
  // Leases of more than `max_bytes` are bad.
  explicit LeaseAssembler(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // Takes the next message. Returns a lease once it is whole, or a bad one as soon as that is known (the rest
  // of its data is passed over); nothing when more is to come. INTERNAL / STREAM_PROTOCOL when the stream
  // cannot go on: a lease begins before the one before it is whole.
  absl::StatusOr<std::optional<ArrivedLease>> Add(internal::v1::DecoderReply&& message);

 private:
  absl::Status Begin(internal::v1::Lease&& message);
  absl::Status Append(const internal::v1::LeaseData& message);

  const int64_t max_bytes_;
  std::optional<Lease> lease_;  // the one that is arriving
  int64_t data_bytes_ = 0;      // what it announced
};

}  // namespace sextant
