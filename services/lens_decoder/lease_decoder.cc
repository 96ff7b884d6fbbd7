// Decodes leases.
#include "services/lens_decoder/lease_decoder.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "services/lens_decoder/errors.h"

namespace sextant {
namespace {

absl::Status Grow(Backend& backend, int64_t bytes, MemoryKind kind, Buffer& buffer) {
  if (buffer.bytes() >= bytes) return absl::OkStatus();
  SEXTANT_ASSIGN_OR_RETURN(buffer, backend.Allocate(bytes, kind));
  return absl::OkStatus();
}

// Bytes of one row's results: candidates, entropy, divergence, targets.
int64_t ResultBytes(const LensLayout& layout) {
  return int64_t{4} * (2 * layout.top_k() + 2 + 2 * layout.target_count());
}

}  // namespace

absl::StatusOr<std::unique_ptr<LeaseDecoder>> LeaseDecoder::Make(Backend& backend, const LensHead& head,
                                                                 const LeaseDecoderOptions& options) {
  SEXTANT_CHECK(options.max_batch_rows > 0 && options.max_reading_bytes > 0);
  std::unique_ptr<LeaseDecoder> decoder(new LeaseDecoder(backend, head, options));
  SEXTANT_ASSIGN_OR_RETURN(decoder->stream_, backend.CreateStream());
  return decoder;
}

absl::Status LeaseDecoder::Decode(const Lease& lease, const Emit& emit, const OnBatch& on_batch) {
  SEXTANT_ASSIGN_OR_RETURN(const LensLayout layout,
                           LensLayout::Make(lease.spec, head_.hidden_size, head_.vocab_size));
  const size_t total = lease.positions.size();
  if (lease.target_ids.size() != total ||
      static_cast<int64_t>(lease.data.size()) != static_cast<int64_t>(total) * layout.position_bytes()) {
    return LeaseInvalid("positions, targets and data do not match");
  }
  const auto batch_size = static_cast<size_t>(std::max(1, options_.max_batch_rows / layout.group_rows()));
  const auto piece_size =
      static_cast<size_t>(std::max<int64_t>(1, options_.max_reading_bytes / layout.reading_bytes()));
  for (size_t first = 0; first < total; first += batch_size) {
    const size_t count = std::min(batch_size, total - first);
    LensBatch batch;
    SEXTANT_RETURN_IF_ERROR(DecodeBatch(layout, lease, first, count, batch));
    const LensOutput output = Output(layout, batch.rows.rows);
    on_batch({static_cast<int>(count), static_cast<int>(batch.rows.rows)});
    for (size_t piece = 0; piece < count; piece += piece_size) {
      const auto positions =
          absl::MakeConstSpan(lease.positions).subspan(first + piece, std::min(piece_size, count - piece));
      SEXTANT_RETURN_IF_ERROR(emit(layout.BuildReadings(batch, output, static_cast<int>(piece), positions)));
    }
  }
  return absl::OkStatus();
}

absl::Status LeaseDecoder::DecodeBatch(const LensLayout& layout, const Lease& lease, size_t first,
                                       size_t count, LensBatch& batch) {
  const int64_t rows = static_cast<int64_t>(count) * layout.group_rows();
  SEXTANT_RETURN_IF_ERROR(Reserve(layout, rows));
  batch.rows = Tensor::Of(device_rows_, layout.row_dtype(), rows, head_.hidden_size);
  batch.target_count = layout.target_count();
  batch.top_k = layout.top_k();
  batch.tracked = layout.tracked();
  char* to = static_cast<char*>(host_rows_.data());
  for (size_t i = first; i < first + count; ++i, to += layout.group_rows() * layout.row_bytes()) {
    const absl::string_view payload(lease.data.data() + static_cast<int64_t>(i) * layout.position_bytes(),
                                    static_cast<size_t>(layout.position_bytes()));
    SEXTANT_RETURN_IF_ERROR(layout.AddPosition(payload, lease.target_ids[i], batch, to));
  }
  tracked_ids_.clear();
  tracked_logprobs_.clear();
  backend_.Copy(*stream_, device_rows_.data(), host_rows_.data(), rows * layout.row_bytes());
  backend_.Lens(*stream_, batch, head_.norm(), head_.norm_eps, *head_.head, Output(layout, rows));
  return backend_.Synchronize(*stream_);
}

absl::Status LeaseDecoder::Reserve(const LensLayout& layout, int64_t rows) {
  const int64_t row_bytes = rows * layout.row_bytes();
  SEXTANT_RETURN_IF_ERROR(Grow(backend_, row_bytes, MemoryKind::kPinned, host_rows_));
  SEXTANT_RETURN_IF_ERROR(Grow(backend_, row_bytes, MemoryKind::kDevice, device_rows_));
  return Grow(backend_, rows * ResultBytes(layout), MemoryKind::kPinned, results_);
}

LensOutput LeaseDecoder::Output(const LensLayout& layout, int64_t rows) {
  auto* next = static_cast<char*>(results_.data());
  const auto take = [&next, rows](int64_t per_row) { return std::exchange(next, next + 4 * rows * per_row); };
  LensOutput output;
  output.top_ids = reinterpret_cast<int32_t*>(take(layout.top_k()));
  output.top_logprobs = reinterpret_cast<float*>(take(layout.top_k()));
  output.entropy_nats = reinterpret_cast<float*>(take(1));
  output.kl_final_nats = reinterpret_cast<float*>(take(1));
  output.target_logprobs = reinterpret_cast<float*>(take(layout.target_count()));
  output.target_ranks = reinterpret_cast<int32_t*>(take(layout.target_count()));
  output.tracked_ids = &tracked_ids_;
  output.tracked_logprobs = &tracked_logprobs_;
  return output;
}

}  // namespace sextant
