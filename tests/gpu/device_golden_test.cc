// Tiny models on devices against the results of Hugging Face transformers: alone, and tensor-parallel with
// NCCL between processes, one for each device, as in the services.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/collective/nccl_communicator.h"
#include "common/collective/shm_plan_channel.h"
#include "common/collective/test_group.h"
#include "common/model/testing/model_runner.h"
#include "kernels/cuda/backend.h"
#include "kernels/status_macros.h"
#include "tests/golden/model_comparison.h"
#include "tests/gpu/device_count.h"

namespace sextant {
namespace {

// As for the CPU: what separates a bug from rounding is about 1e-4.
constexpr double kTolerance = 1e-4;
constexpr int64_t kDecoded = 8;
constexpr absl::Duration kTimeout = absl::Seconds(120);

// More than the tiny models' steps move.
CollectiveSizes SizesOf(int ranks) {
  return {.summed_floats = 1 << 13, .gathered_rows = 16, .widths = std::vector<int64_t>(ranks, 1 << 9)};
}

// Runs the steps on this process's device, as rank `rank` of the group. A failure ends the whole group.
absl::StatusOr<RankResult> RunOnDevice(const ModelSource& source, const ModelRunOptions& options,
                                       const std::vector<TestStep>& steps, GroupMemory& memory, int rank) {
  const auto run = [&]() -> absl::StatusOr<RankResult> {
    SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<CudaBackend> backend, MakeCudaBackend(rank));
    ShmPlanChannel channel(memory, rank);
    std::unique_ptr<Communicator> communicator = std::make_unique<NullCommunicator>(*backend);
    if (memory.ranks() > 1) {
      SEXTANT_ASSIGN_OR_RETURN(
          communicator, NcclCommunicator::Create(*backend, channel, SizesOf(memory.ranks()), kTimeout));
    }
    RankResult result;
    SEXTANT_RETURN_IF_ERROR(RunModelRank(source, options, steps, *backend, *communicator, result));
    return result;
  };
  absl::StatusOr<RankResult> result = run();
  if (!result.ok()) memory.Abort();
  return result;
}

// A prompt, then tokens one by one, which are replayed steps.
std::vector<TestStep> PromptAndDecode(const std::vector<int32_t>& tokens) {
  const auto first = tokens.end() - kDecoded;
  std::vector<TestStep> steps = {{{0, {tokens.begin(), first}}}};
  for (auto token = first; token != tokens.end(); ++token) steps.push_back({{0, {*token}}});
  return steps;
}

struct Case {
  const char* model;
  int ranks;
  DType dtype;
};

// What rounding to BF16 costs the CPU, twice: a device rounds the same numbers, but adds up in another order,
// so that what lies near the middle between two BF16 numbers may round the other way.
Errors Allowed(const Case& test, const ModelSource& source) {
  if (test.dtype != DType::kBF16) return {kTolerance, kTolerance};
  const GoldenFile golden(test.model);
  const auto cpu = RunSequence(source, {.dtype = test.dtype}, Inputs(golden));
  EXPECT_TRUE(cpu.ok()) << cpu.status();
  if (!cpu.ok()) return {};
  const Errors errors = Compare(golden, source.spec(), *cpu);
  return {2 * errors.rows, 2 * errors.logprobs};
}

// One rank's part, in its own process: "" or what went wrong. Every rank compares its rows; rank 0 the
// log-probabilities too.
std::string RunCase(const Case& test, const ModelSource& source, const Errors& allowed, GroupMemory& memory,
                    int rank) {
  const GoldenFile golden(test.model);
  const auto result =
      RunOnDevice(source, {.dtype = test.dtype}, PromptAndDecode(Inputs(golden)), memory, rank);
  if (!result.ok()) return result.status().ToString();
  const SequenceResult& got = result->sequences.at(0);
  const ModelSpec& spec = source.spec();
  const bool bf16 = test.dtype == DType::kBF16;
  const Errors errors = rank == 0 ? Compare(golden, spec, got) : Errors{CompareRows(golden, spec, got), 0};
  if (rank == 0) {
    std::printf("%s in %s, %d ranks: rows %.1e (%.1e allowed), log-probabilities %.1e (%.1e allowed)\n",
                test.model, bf16 ? "BF16" : "F32", memory.ranks(), errors.rows, allowed.rows, errors.logprobs,
                allowed.logprobs);
    std::fflush(stdout);
  }
  EXPECT_LT(errors.rows, allowed.rows);
  EXPECT_LE(errors.logprobs, allowed.logprobs);
  if (bf16) {
    EXPECT_GT(errors.rows, 10 * kTolerance) << "float32 by mistake?";
  }
  // Negative control: two layers' rows swapped are seen.
  const auto swapped = [](int64_t layer) { return layer < 2 ? 1 - layer : layer; };
  EXPECT_GT(CompareRows(golden, spec, got, swapped), allowed.rows);
  return testing::Test::HasFailure() ? "does not agree" : "";
}

class DeviceGoldenTest : public testing::TestWithParam<Case> {};

TEST_P(DeviceGoldenTest, AgreesWithTransformers) {
  const Case& test = GetParam();
  if (const std::string lack = LacksDevices(test.ranks); !lack.empty()) GTEST_SKIP() << lack;
  const auto source = OpenModel(GoldenFile::Folder() + "/models/" + test.model);
  ASSERT_TRUE(source.ok()) << source.status();
  const Errors allowed = Allowed(test, **source);
  RunGroup(RankKind::kProcesses, test.ranks,
           [&](GroupMemory& memory, int rank) { return RunCase(test, **source, allowed, memory, rank); });
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int ranks : {1, 2}) {
      cases.push_back({"llama31_tiny", ranks, dtype});
      cases.push_back({"qwen3_tiny", ranks, dtype});
    }
    // Has a key/value head for each of 8 ranks.
    for (const int ranks : {1, 2, 4, 8}) cases.push_back({"llama31_wide_tiny", ranks, dtype});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Models, DeviceGoldenTest, testing::ValuesIn(Cases()), [](const auto& info) {
  return absl::StrCat(info.param.model, "_", info.param.dtype == DType::kF32 ? "F32" : "BF16", "_TP",
                      info.param.ranks);
});

}  // namespace
}  // namespace sextant
