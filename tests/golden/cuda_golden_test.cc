// The CUDA backend, on the emulated machine, against the same goldens as the CPU's, and against the CPU's own
// run where steering and recording go on inside replayed graphs; alone, and as two ranks joined by NCCL.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "common/collective/nccl_communicator.h"
#include "common/collective/shm_plan_channel.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/emulation/control.h"
#include "tests/golden/model_comparison.h"

namespace sextant {
namespace {

// As for the CPU: what separates a bug from rounding is about 1e-4.
constexpr double kTolerance = 1e-4;
constexpr int64_t kDecoded = 8;

absl::StatusOr<std::unique_ptr<Backend>> MakeEmulated(int rank) { return MakeCudaBackend(rank); }

// What NCCL ranks of one run meet by. Outlives the run.
class NcclGroup {
 public:
  explicit NcclGroup(int ranks) : memory_(*GroupMemory::Create(ranks)) {
    for (int rank = 0; rank < ranks; ++rank)
      channels_.push_back(std::make_unique<ShmPlanChannel>(*memory_, rank));
  }

  absl::StatusOr<std::unique_ptr<Communicator>> Join(int rank, Backend& backend) {
    // More than the tiny models' steps move.
    const CollectiveSizes sizes = {.summed_floats = 1 << 16,
                                   .gathered_rows = 16,
                                   .widths = std::vector<int64_t>(channels_.size(), 1 << 12)};
    return NcclCommunicator::Create(static_cast<CudaBackend&>(backend), *channels_[rank], sizes,
                                    absl::Seconds(60));
  }

 private:
  std::unique_ptr<GroupMemory> memory_;
  std::vector<std::unique_ptr<ShmPlanChannel>> channels_;  // of each rank
};

// Ranks that come together try whether collectives can be replayed.
int64_t TrialReplays(int ranks) { return ranks > 1 ? ranks : 0; }

// Of `ranks` emulated devices. `group` outlives what it is given to.
ModelRunOptions OnDevices(int ranks, NcclGroup& group) {
  ModelRunOptions options{.ranks = ranks, .make_backend = MakeEmulated};
  options.make_communicator = [&group](int rank, Backend& backend) { return group.Join(rank, backend); };
  return options;
}

// A prompt, then tokens one by one.
std::vector<int64_t> PromptAndDecode(const std::vector<int32_t>& tokens) {
  std::vector<int64_t> sizes = {static_cast<int64_t>(tokens.size()) - kDecoded};
  sizes.insert(sizes.end(), kDecoded, 1);
  return sizes;
}

struct GoldenCase {
  const char* name;
  emulation::Schedule schedule;
  const char* label;
  int ranks = 1;
};

class CudaGoldenTest : public testing::TestWithParam<GoldenCase> {
 protected:
  void SetUp() override { emulation::SetSchedule(GetParam().schedule); }
  void TearDown() override { emulation::SetSchedule({}); }
};

TEST_P(CudaGoldenTest, AgreesWithTransformers) {
  const GoldenFile golden(GetParam().name);
  const auto source = OpenModel(GoldenFile::Folder() + "/models/" + GetParam().name);
  ASSERT_TRUE(source.ok()) << source.status();
  const std::vector<int32_t> tokens = Inputs(golden);
  const emulation::Counters before = emulation::ReadCounters();
  const int ranks = GetParam().ranks;
  NcclGroup group(ranks);
  const auto got = RunSequence(**source, OnDevices(ranks, group), tokens, PromptAndDecode(tokens));
  ASSERT_TRUE(got.ok()) << got.status();
  const Errors errors = Compare(golden, (*source)->spec(), *got);
  std::printf("%s on cuda, %d ranks: rows %.1e, log-probabilities %.1e\n", GetParam().name, ranks,
              errors.rows, errors.logprobs);
  EXPECT_LT(errors.rows, kTolerance);
  EXPECT_LT(errors.logprobs, kTolerance);
  // The first decoded token is launched plainly; every later one is one graph on each rank.
  EXPECT_EQ(emulation::ReadCounters().graph_launches - before.graph_launches,
            ranks * (kDecoded - 1) + TrialReplays(ranks));
}

INSTANTIATE_TEST_SUITE_P(
    Models, CudaGoldenTest,
    testing::Values(
        GoldenCase{"llama31_tiny", {}, "Llama31Late"}, GoldenCase{"qwen3_tiny", {}, "Qwen3Late"},
        GoldenCase{"llama31_tiny", {.order = emulation::Order::kShuffled, .seed = 3}, "Llama31Shuffled"},
        GoldenCase{"qwen3_tiny", {.order = emulation::Order::kShuffled, .seed = 4}, "Qwen3Shuffled"},
        GoldenCase{"llama31_tiny", {}, "Llama31LateTwoRanks", 2},
        GoldenCase{
            "qwen3_tiny", {.order = emulation::Order::kShuffled, .seed = 5}, "Qwen3ShuffledTwoRanks", 2}),
    [](const auto& info) { return std::string(info.param.label); });

// Steers one site of every layer and records another into a ring, with row lists that differ from step to
// step.
class SteeringAndRecording {
 public:
  SteeringAndRecording(int64_t hidden, bool forget_steering)
      : hidden_(hidden), forget_steering_(forget_steering) {}

  void OnSite(Backend& backend, Stream& stream, Site site, int32_t layer, Tensor activation) {
    if (ring_.data() == nullptr) Allocate(backend, stream);
    if (site == v1::SITE_RESID_PRE && layer == 0) ++step_;
    if (site == v1::SITE_RESID_MID && !forget_steering_) {
      SteerEntry add{.strength = 0.5f * static_cast<float>(step_), .direction = direction_, .rows = {}};
      SteerEntry ablate{
          .op = SteerOperator::kAblate, .preserve_norm = true, .direction = direction_, .rows = {}};
      add.rows = {static_cast<int32_t>(activation.rows - 1)};
      if (step_ % 2 == 0) ablate.rows = {0};
      backend.Steer(stream, activation, {add, ablate});
    }
    if (site == v1::SITE_RESID_POST) {
      const int64_t slot = (step_ * 7 + layer) % kSlots;
      backend.RecordRows(stream, activation,
                         {{static_cast<int32_t>(activation.rows - 1), slot * hidden_ * 4}}, DType::kF32,
                         ring_.data());
      backend.RecordRms(stream, activation, 1e-5f, {{0, (kSlots * hidden_ + slot) * 4}}, ring_.data());
    }
  }

  // The ring's rows and scales; valid once the stream was waited for.
  std::vector<float> Values() const {
    const auto* values = static_cast<const float*>(ring_.data());
    return {values, values + kSlots * (hidden_ + 1)};
  }

 private:
  static constexpr int64_t kSlots = 64;

  void Allocate(Backend& backend, Stream& stream) {
    const int64_t bytes = kSlots * (hidden_ + 1) * 4;
    ring_ = *backend.Allocate(bytes, MemoryKind::kPinned);
    std::fill_n(static_cast<float*>(ring_.data()), bytes / 4, 0.0f);
    std::vector<float> values(static_cast<size_t>(hidden_));
    for (int64_t i = 0; i < hidden_; ++i) values[static_cast<size_t>(i)] = std::sin(static_cast<float>(i));
    memory_ = *backend.Allocate(hidden_ * 4, MemoryKind::kDevice);
    backend.Copy(stream, memory_.data(), values.data(), hidden_ * 4);
    EXPECT_TRUE(backend.Synchronize(stream).ok());
    direction_ = Tensor::Of(memory_, DType::kF32, 1, hidden_);
  }

  const int64_t hidden_;
  const bool forget_steering_;
  int64_t step_ = 0;
  Buffer ring_, memory_;
  Tensor direction_;
};

struct SteeredRun {
  SequenceResult result;
  std::vector<std::vector<float>> rings;  // of each rank
};

// On `devices` emulated devices, or on the CPU when there are none.
SteeredRun RunSteered(const ModelSource& source, const std::vector<int32_t>& tokens, int devices, DType dtype,
                      bool forget_steering = false) {
  const int ranks = std::max(devices, 1);
  std::vector<SteeringAndRecording> hooks;
  for (int rank = 0; rank < ranks; ++rank) hooks.emplace_back(source.spec().hidden_size, forget_steering);
  NcclGroup group(ranks);
  ModelRunOptions options = devices > 0 ? OnDevices(ranks, group) : ModelRunOptions{};
  options.dtype = dtype;
  options.on_site = [&](Backend& backend, Stream& stream, Site site, int32_t layer, Tensor activation) {
    const int rank = devices > 0 ? static_cast<CudaBackend&>(backend).ordinal() : 0;
    hooks[rank].OnSite(backend, stream, site, layer, activation);
  };
  SteeredRun run;
  auto result = RunSequence(source, options, tokens, PromptAndDecode(tokens));
  EXPECT_TRUE(result.ok()) << result.status();
  if (!result.ok()) return run;
  run.result = *std::move(result);
  for (const SteeringAndRecording& rank : hooks) run.rings.push_back(rank.Values());
  return run;
}

double Distance(const std::vector<float>& got, const std::vector<float>& want) {
  EXPECT_EQ(got.size(), want.size());
  return RowError(got.data(), want.data(), static_cast<int64_t>(want.size()));
}

class CudaStepTest : public testing::TestWithParam<int> {};

TEST_P(CudaStepTest, SteersAndRecordsInsideReplayedGraphs) {
  const int ranks = GetParam();
  const auto source = OpenModel(GoldenFile::Folder() + "/models/qwen3_tiny");
  ASSERT_TRUE(source.ok()) << source.status();
  const std::vector<int32_t> tokens = Inputs(GoldenFile("qwen3_tiny"));
  // BF16 rounds keys, values and matrix inputs of both; their sums differ in order, so some round apart.
  for (const auto& [dtype, tolerance] : {std::pair(DType::kF32, kTolerance), std::pair(DType::kBF16, 0.02)}) {
    const emulation::Counters before = emulation::ReadCounters();
    const SteeredRun cuda = RunSteered(**source, tokens, ranks, dtype);
    const int64_t replayed = emulation::ReadCounters().graph_launches - before.graph_launches;
    const SteeredRun cpu = RunSteered(**source, tokens, 0, dtype);
    ASSERT_EQ(cuda.rings.size(), static_cast<size_t>(ranks));
    ASSERT_EQ(cpu.rings.size(), 1u);
    EXPECT_LT(Distance(cuda.result.logits, cpu.result.logits), tolerance);
    // Every rank has the whole residual stream, steered and recorded.
    for (const std::vector<float>& ring : cuda.rings) EXPECT_LT(Distance(ring, cpu.rings[0]), tolerance);
    // Odd and even steps steer a different number of rows, within the same capacity: one graph serves both.
    EXPECT_EQ(replayed, ranks * (kDecoded - 1) + TrialReplays(ranks));
    // Negative control: without steering the difference shows.
    const SteeredRun unsteered = RunSteered(**source, tokens, ranks, dtype, true);
    ASSERT_EQ(unsteered.rings.size(), static_cast<size_t>(ranks));
    for (const std::vector<float>& ring : unsteered.rings)
      EXPECT_GT(Distance(ring, cpu.rings[0]), 2 * tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, CudaStepTest, testing::Values(1, 2), testing::PrintToStringParamName());

}  // namespace
}  // namespace sextant
