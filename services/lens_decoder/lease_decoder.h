// Decodes leases: rows in, readings out, in batches big enough to keep the device busy.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/lens_head.h"
#include "kernels/backend.h"
#include "services/lens_decoder/lease.h"
#include "services/lens_decoder/lens_layout.h"
#include "sextant/v1/types.pb.h"

namespace sextant {

struct LeaseDecoderOptions {
  // Rows of one batch, unless a single position has more.
  int max_batch_rows = 1024;
  // Readings are handed on in pieces of about this size, unless a single position's are bigger.
  int64_t max_reading_bytes = 1 << 20;
};

// What one batch was.
struct DecodedBatch {
  int position_count = 0;
  int row_count = 0;
};

// Whether an error of Decode is the leases' own (one could not be served, or memory was missing for it): the
// device is whole, and others can still be decoded.
bool IsBadLease(const absl::Status& status);

// Owns a stream of the backend and the batch's memory, which grows to what leases need and stays. Threads:
// one.
class LeaseDecoder {
 public:
  // Takes the next piece of a lease's readings; a failed status ends the decoding.
  using Emit = std::function<absl::Status(const Lease& lease, v1::Readings&& readings)>;
  // Told of each batch once its readings are known.
  using OnBatch = std::function<void(const DecodedBatch& batch)>;

  // `backend` and `head` must outlive it, and may be shared with other decoders.
  static absl::StatusOr<std::unique_ptr<LeaseDecoder>> Make(Backend& backend, const LensHead& head,
                                                            const LeaseDecoderOptions& options);

  // Decodes all positions of the leases together, in order. REQUIRES: at least one lease, and equal
  // spec_keys. INVALID_ARGUMENT / LEASE_... or RESOURCE_EXHAUSTED when one of them cannot be decoded, before
  // anything of its batch was emitted, and others still can; what `emit` failed with; any other status is a
  // fault of the device, after which nothing can (DEADLINE_EXCEEDED / DEVICE_HUNG: it does nothing).
  absl::Status Decode(absl::Span<const Lease> leases, const Emit& emit, const OnBatch& on_batch);

  int max_batch_rows() const { return options_.max_batch_rows; }

 private:
  LeaseDecoder(Backend& backend, const LensHead& head, const LeaseDecoderOptions& options)
      : backend_(backend), head_(head), options_(options) {}
  // One position of one of the leases.
  struct Item {
    const Lease* lease = nullptr;
    size_t index = 0;  // of the position within the lease

    int32_t position() const { return lease->positions[index]; }
    int32_t target_id() const { return lease->target_ids[index]; }
    absl::string_view Payload(const LensLayout& layout) const;
  };

  // Every position of the leases, checked.
  static absl::StatusOr<std::vector<Item>> List(const LensLayout& layout, absl::Span<const Lease> leases);
  // Makes the buffers big enough for `rows` rows of this layout.
  absl::Status Reserve(const LensLayout& layout, int64_t rows);
  absl::Status DecodeBatch(const LensLayout& layout, absl::Span<const Item> items, LensBatch& batch);
  // Hands the batch's readings on, cut at leases and at the size of a piece.
  absl::Status EmitBatch(const LensLayout& layout, absl::Span<const Item> items, const LensBatch& batch,
                         const Emit& emit);
  LensOutput Output(const LensLayout& layout, int64_t rows);

  Backend& backend_;
  const LensHead& head_;
  const LeaseDecoderOptions options_;
  std::unique_ptr<Stream> stream_;  // null after a batch that failed of itself, until the next one
  Buffer host_rows_;                // pinned, row dtype [rows, hidden_size]
  Buffer device_rows_;              // the same on the device
  Buffer results_;                  // pinned: the arrays of LensOutput, one after the other
  std::vector<std::vector<int32_t>> tracked_ids_;
  std::vector<std::vector<float>> tracked_logprobs_;
};

}  // namespace sextant
