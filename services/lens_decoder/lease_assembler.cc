// Puts leases together from the messages that carry them.
#include "services/lens_decoder/lease_assembler.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/activation/row_layout.h"
#include "services/lens_decoder/errors.h"

namespace sextant {

absl::StatusOr<std::optional<ArrivedLease>> LeaseAssembler::Add(internal::v1::DecoderReply&& message) {
  absl::Status status;
  BadLease bad;
  if (message.has_lease()) {
    if (lease_.has_value()) return StreamProtocol("a lease began before the one before it was whole");
    bad = {message.lease().lease(), message.lease().request_id(), message.lease().trace_id(), {}};
    status = Begin(std::move(*message.mutable_lease()));
  } else if (message.has_data() && lease_.has_value() && message.data().lease() == lease_->id) {
    bad = {lease_->id, lease_->request_id, lease_->trace_id, {}};
    status = Append(message.data());
    if (status.ok() && message.data().last()) {
      return ArrivedLease(*std::exchange(lease_, std::nullopt));
    }
  }
  if (status.ok()) return std::nullopt;
  lease_.reset();
  bad.status = std::move(status);
  return ArrivedLease(std::move(bad));
}

absl::Status LeaseAssembler::Begin(internal::v1::Lease&& message) {
  if (const absl::Status status = ValidateCaptureSpec(message.spec()); !status.ok()) {
    return LeaseInvalid(status.message());
  }
  const int positions = message.positions_size();
  if (positions == 0 || message.target_ids_size() != positions) {
    return LeaseInvalid(absl::StrCat(positions, " positions and ", message.target_ids_size(), " targets"));
  }
  if (std::set<int32_t>(message.positions().begin(), message.positions().end()).size() !=
      static_cast<size_t>(positions)) {
    return LeaseInvalid("a position is there twice");
  }
  if (message.data_bytes() > max_bytes_) return LeaseTooBig(message.data_bytes(), max_bytes_);
  if (message.data_bytes() != positions * PositionBytes(message.spec())) {
    return LeaseInvalid(absl::StrCat(message.data_bytes(), " bytes for ", positions, " positions of ",
                                     PositionBytes(message.spec())));
  }
  data_bytes_ = message.data_bytes();
  lease_.emplace();
  lease_->id = message.lease();
  lease_->capture = std::move(*message.mutable_capture());
  lease_->request_id = std::move(*message.mutable_request_id());
  lease_->trace_id = std::move(*message.mutable_trace_id());
  lease_->positions.assign(message.positions().begin(), message.positions().end());
  lease_->target_ids.assign(message.target_ids().begin(), message.target_ids().end());
  lease_->spec = std::move(*message.mutable_spec());
  lease_->spec_key = lease_->spec.SerializeAsString();
  return absl::OkStatus();
}

absl::Status LeaseAssembler::Append(const internal::v1::LeaseData& message) {
  const int64_t missing = data_bytes_ - static_cast<int64_t>(lease_->data.size());
  if (static_cast<int64_t>(message.data().size()) > missing)
    return LeaseInvalid("more data than was announced");
  lease_->data += message.data();
  if (message.last() && static_cast<int64_t>(lease_->data.size()) != data_bytes_) {
    return LeaseInvalid(
        absl::StrCat("the data ends after ", lease_->data.size(), " of ", data_bytes_, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace sextant
