// Decodes leases.
#include "services/lens_decoder/lease_decoder.h"

#include <algorithm>
#include <utility>

#include "common/activation/row_layout.h"
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

}  // namespace

bool IsBadLease(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsResourceExhausted(status);
}

absl::StatusOr<std::unique_ptr<LeaseDecoder>> LeaseDecoder::Make(Backend& backend, const LensHead& head,
                                                                 const LeaseDecoderOptions& options) {
  SEXTANT_CHECK(options.max_batch_rows > 0 && options.max_reading_bytes > 0);
  std::unique_ptr<LeaseDecoder> decoder(new LeaseDecoder(backend, head, options));
  SEXTANT_ASSIGN_OR_RETURN(decoder->stream_, backend.CreateStream());
  return decoder;
}

absl::Status LeaseDecoder::Decode(absl::Span<const Lease> leases, const Emit& emit, const OnBatch& on_batch) {
  SEXTANT_CHECK(!leases.empty());
  SEXTANT_ASSIGN_OR_RETURN(const LensLayout layout,
                           LensLayout::Make(leases[0].spec, head_.hidden_size, head_.vocab_size));
  SEXTANT_ASSIGN_OR_RETURN(const std::vector<Item> items, List(layout, leases));
  const auto batch_size = static_cast<size_t>(std::max(1, options_.max_batch_rows / layout.group_rows()));
  for (size_t first = 0; first < items.size(); first += batch_size) {
    const absl::Span<const Item> some = absl::MakeConstSpan(items).subspan(first, batch_size);
    LensBatch batch;
    SEXTANT_RETURN_IF_ERROR(DecodeBatch(layout, some, batch));
    on_batch({static_cast<int>(some.size()), static_cast<int>(batch.rows.rows)});
    SEXTANT_RETURN_IF_ERROR(EmitBatch(layout, some, batch, emit));
  }
  return absl::OkStatus();
}

absl::string_view LeaseDecoder::Item::Payload(const LensLayout& layout) const {
  const auto bytes = static_cast<size_t>(layout.position_bytes());
  return absl::string_view(lease->data).substr(index * bytes, bytes);
}

absl::StatusOr<std::vector<LeaseDecoder::Item>> LeaseDecoder::List(const LensLayout& layout,
                                                                   absl::Span<const Lease> leases) {
  std::vector<Item> items;
  for (const Lease& lease : leases) {
    SEXTANT_CHECK(lease.spec_key == leases[0].spec_key);
    const size_t count = lease.positions.size();
    if (lease.target_ids.size() != count ||
        static_cast<int64_t>(lease.data.size()) != static_cast<int64_t>(count) * layout.position_bytes()) {
      return LeaseInvalid("positions, targets and data do not match");
    }
    for (size_t i = 0; i < count; ++i) {
      items.push_back({&lease, i});
      SEXTANT_RETURN_IF_ERROR(layout.CheckPosition(items.back().Payload(layout), items.back().target_id()));
    }
  }
  return items;
}

absl::Status LeaseDecoder::DecodeBatch(const LensLayout& layout, absl::Span<const Item> items,
                                       LensBatch& batch) {
  const int64_t rows = static_cast<int64_t>(items.size()) * layout.group_rows();
  SEXTANT_RETURN_IF_ERROR(Reserve(layout, rows));
  if (stream_ == nullptr) {
    SEXTANT_ASSIGN_OR_RETURN(stream_, backend_.CreateStream());
  }
  batch.rows = Tensor::Of(device_rows_, layout.row_dtype(), rows, head_.hidden_size);
  batch.target_count = layout.target_count();
  batch.top_k = layout.top_k();
  batch.tracked = layout.tracked();
  char* to = static_cast<char*>(host_rows_.data());
  for (const Item& item : items) {
    layout.AddPosition(item.Payload(layout), item.target_id(), batch, to);
    to += layout.group_rows() * layout.row_bytes();
  }
  tracked_ids_.clear();
  tracked_logprobs_.clear();
  backend_.Copy(*stream_, device_rows_.data(), host_rows_.data(), rows * layout.row_bytes());
  backend_.Lens(*stream_, batch, head_.norm(), head_.norm_eps, *head_.head, Output(layout, rows));
  const absl::Status status = backend_.Synchronize(*stream_);
  if (absl::IsDeadlineExceeded(status)) return DeviceHung(status);
  // A stream keeps its first fault, which later batches have no part in.
  if (IsBadLease(status)) stream_ = nullptr;
  return status;
}

absl::Status LeaseDecoder::EmitBatch(const LensLayout& layout, absl::Span<const Item> items,
                                     const LensBatch& batch, const Emit& emit) {
  const LensOutput output = Output(layout, batch.rows.rows);
  const auto piece_size =
      static_cast<size_t>(std::max<int64_t>(1, options_.max_reading_bytes / layout.reading_bytes()));
  for (size_t first = 0; first < items.size();) {
    const Lease& lease = *items[first].lease;
    std::vector<int32_t> positions;
    for (size_t i = first; i < items.size() && items[i].lease == &lease && positions.size() < piece_size;
         ++i) {
      positions.push_back(items[i].position());
    }
    SEXTANT_RETURN_IF_ERROR(
        emit(lease, layout.BuildReadings(batch, output, static_cast<int>(first), positions)));
    first += positions.size();
  }
  return absl::OkStatus();
}

absl::Status LeaseDecoder::Reserve(const LensLayout& layout, int64_t rows) {
  const int64_t row_bytes = rows * layout.row_bytes();
  SEXTANT_RETURN_IF_ERROR(Grow(backend_, row_bytes, MemoryKind::kPinned, host_rows_));
  SEXTANT_RETURN_IF_ERROR(Grow(backend_, row_bytes, MemoryKind::kDevice, device_rows_));
  return Grow(backend_, rows * LensResultBytes(layout.top_k(), layout.target_count()), MemoryKind::kPinned,
              results_);
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
