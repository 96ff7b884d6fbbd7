// Implements the execution of plans.
#include "services/shard_worker/rank_executor.h"

#include <algorithm>
#include <utility>

#include "common/base/log.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

}  // namespace

RankExecutor::RankExecutor(Backend& backend, Communicator& communicator, Transformer& transformer,
                           CaptureRing& ring, CaptureOutbox& outbox)
    : backend_(backend),
      communicator_(communicator),
      transformer_(transformer),
      ring_(ring),
      outbox_(outbox),
      hooks_(backend, ring.memory(), ring.slot_bytes(), transformer.options().dtype,
             transformer.spec().norm_eps) {}

absl::StatusOr<std::unique_ptr<RankExecutor>> RankExecutor::Make(Backend& backend, Communicator& communicator,
                                                                 Transformer& transformer, CaptureRing& ring,
                                                                 CaptureOutbox& outbox,
                                                                 int32_t steering_slot_count) {
  std::unique_ptr<RankExecutor> executor(new RankExecutor(backend, communicator, transformer, ring, outbox));
  SEXTANT_ASSIGN_OR_RETURN(executor->stream_, backend.CreateStream());
  const int64_t rows = transformer.options().max_sampled_rows;
  SEXTANT_ASSIGN_OR_RETURN(executor->sampled_, backend.Allocate(rows * 8, MemoryKind::kPinned));
  // What recording takes of a device is taken now, and not when the first capture comes.
  const Tensor nothing = {nullptr, DType::kF32, 0, transformer.spec().hidden_size,
                          transformer.spec().hidden_size};
  backend.RecordRows(*executor->stream_, nothing, {}, transformer.options().dtype, ring.memory());
  SEXTANT_RETURN_IF_ERROR(backend.Synchronize(*executor->stream_));
  SEXTANT_ASSIGN_OR_RETURN(executor->steering_,
                           SteeringPool::Make(backend, steering_slot_count, transformer.spec().hidden_size));
  return executor;
}

absl::StatusOr<std::vector<SampledToken>> RankExecutor::Run(const pb::Plan& plan,
                                                            absl::Span<const SampleRow> samples) {
  for (const pb::Admit& admit : plan.admits()) SEXTANT_RETURN_IF_ERROR(AdmitSlot(admit));
  TakeMarks(plan);
  std::vector<SampledToken> tokens;
  if (!plan.work().empty()) {
    StepBatch batch;
    // The same for all ranks: what is captured of a step must be.
    hooks_.Begin(std::all_of(plan.work().begin(), plan.work().end(),
                             [](const pb::Work& work) { return work.token_ids_size() == 1; }));
    for (const pb::Work& work : plan.work()) AddRun(work, batch);
    for (const pb::Work& work : plan.work()) batch.block_tables.push_back(slots_.at(work.slot()).blocks);
    SEXTANT_ASSIGN_OR_RETURN(const Tensor logits, transformer_.Forward(*stream_, batch, hooks_));
    if (samples.empty()) {
      SEXTANT_RETURN_IF_ERROR(communicator_.Wait(*stream_));
    } else {
      SEXTANT_ASSIGN_OR_RETURN(tokens, Sample(logits, samples));
    }
    // Only now are the rows in the ring.
    for (RecordedPosition& recorded : hooks_.recorded()) {
      outbox_.Recorded(recorded.capture, recorded.position, std::move(recorded.slots), recorded.lens,
                       recorded.target_id);
    }
  }
  for (const int32_t slot : plan.released_slots()) slots_.erase(slot);
  if (const StepCounters steps = this->steps(); steps.failed > failed_graphs_) {
    failed_graphs_ = steps.failed;
    LogWarning("a step could not be made a graph and runs operation by operation, which is slower",
               {{"rank", communicator_.rank()}, {"failed", steps.failed}, {"captured", steps.captured}});
  }
  return tokens;
}

absl::Status RankExecutor::AdmitSlot(const pb::Admit& admit) {
  const ModelSpec& spec = transformer_.spec();
  Slot& slot = slots_[admit.slot()];
  slot = Slot();
  for (const auto& intervention : admit.interventions()) {
    SEXTANT_ASSIGN_OR_RETURN(
        auto vector, SteeringVector::Load(*steering_, *stream_, intervention, admit.prompt_token_count(),
                                          static_cast<int32_t>(spec.layer_count)));
    slot.vectors.push_back(std::move(vector));
  }
  if (admit.capture().empty()) return absl::OkStatus();
  slot.capture = admit.capture();
  slot.layout = std::make_unique<RecordLayout>(admit.spec(), static_cast<int32_t>(spec.layer_count));
  outbox_.Open(admit.capture(), admit.capture_address(), admit.spec());
  return absl::OkStatus();
}

// Stamps before ends: the last position's target comes with its capture's seal.
void RankExecutor::TakeMarks(const pb::Plan& plan) {
  for (const pb::Stamp& stamp : plan.stamps())
    outbox_.Stamp(stamp.capture(), stamp.position(), stamp.target_id());
  for (const pb::CaptureEnd& end : plan.ends()) outbox_.Close(end.capture(), end.kind());
}

void RankExecutor::AddRun(const pb::Work& work, StepBatch& batch) {
  Slot& slot = slots_.at(work.slot());
  slot.blocks.insert(slot.blocks.end(), work.new_blocks().begin(), work.new_blocks().end());
  const int32_t first_row = static_cast<int32_t>(batch.token_ids.size());
  const int32_t count = work.token_ids_size();
  batch.runs.push_back({.sequence = static_cast<int32_t>(batch.runs.size()),
                        .first_row = first_row,
                        .row_count = count,
                        .start_position = work.start_position()});
  batch.token_ids.insert(batch.token_ids.end(), work.token_ids().begin(), work.token_ids().end());
  if (work.sample()) batch.sampled_rows.push_back(first_row + count - 1);
  for (const auto& vector : slot.vectors) {
    SteeredRows steered = {vector.get(), {}};
    for (int32_t i = 0; i < count; ++i) {
      if (vector->Selects(work.start_position() + i, work.token_ids(i)))
        steered.rows.push_back(first_row + i);
    }
    hooks_.AddSteered(std::move(steered));
  }
  if (slot.layout == nullptr) return;
  hooks_.AddLayout(*slot.layout);
  AddRecorded(work, slot, first_row);
}

void RankExecutor::AddRecorded(const pb::Work& work, const Slot& slot, int32_t first_row) {
  for (int32_t i = 0; i < work.record_positions_size(); ++i) {
    const int32_t position = work.record_positions(i);
    if (OwnerRank(work.slot(), position, communicator_.size()) != communicator_.rank()) continue;
    std::vector<int32_t> slots = outbox_.Reserve(slot.capture, slot.layout->slot_count());
    if (slots.empty()) continue;  // the capture service has given the capture up
    hooks_.AddRecorded({.row = first_row + position - work.start_position(),
                        .slots = std::move(slots),
                        .layout = slot.layout.get(),
                        .capture = slot.capture,
                        .position = position,
                        .lens = work.record_lens(i),
                        .target_id = work.record_targets(i)});
  }
}

absl::StatusOr<std::vector<SampledToken>> RankExecutor::Sample(Tensor logits,
                                                               absl::Span<const SampleRow> samples) {
  const int64_t count = static_cast<int64_t>(samples.size());
  std::vector<SampleSettings> settings;
  for (const SampleRow& sample : samples) settings.push_back(sample.settings);
  const Tensor ids = Tensor::Of(sampled_.data(), DType::kI32, count, 1);
  const Tensor logprobs = Tensor::Of(ids.As<int32_t>() + count, DType::kF32, count, 1);
  backend_.Sample(*stream_, logits, std::move(settings), ids, logprobs);
  SEXTANT_RETURN_IF_ERROR(communicator_.Wait(*stream_));
  std::vector<SampledToken> tokens(count);
  for (int64_t i = 0; i < count; ++i) tokens[i] = {ids.As<int32_t>()[i], logprobs.As<float>()[i]};
  return tokens;
}

}  // namespace sextant
