// Which models fit on which devices, from their config.json alone.
#include "common/model/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/model/hf_config.h"

namespace sextant {
namespace {

using ::testing::HasSubstr;

struct Shape {
  const char* name;
  const char* type;
  int64_t layers, hidden, heads, kv_heads, head_dim, feed_forward, vocab;
  bool tied;
  double billions;  // of parameters, as published
};

constexpr Shape kQwen4B = {"Qwen3-4B", "qwen3", 36, 2560, 32, 8, 128, 9728, 151936, true, 4.02};
constexpr Shape kLlama8B = {"Llama-3.1-8B", "llama", 32, 4096, 32, 8, 128, 14336, 128256, false, 8.03};
constexpr Shape kQwen14B = {"Qwen3-14B", "qwen3", 40, 5120, 40, 8, 128, 17408, 151936, false, 14.77};
constexpr Shape kQwen32B = {"Qwen3-32B", "qwen3", 64, 5120, 64, 8, 128, 25600, 151936, false, 32.76};
constexpr Shape kLlama70B = {"Llama-3.1-70B", "llama", 80, 8192, 64, 8, 128, 28672, 128256, false, 70.55};

ModelSpec SpecOf(const Shape& shape) {
  const auto spec = ParseHfConfig(
      absl::StrCat(R"({"model_type": ")", shape.type, R"(", "num_hidden_layers": )", shape.layers,
                   R"(, "hidden_size": )", shape.hidden, R"(, "num_attention_heads": )", shape.heads,
                   R"(, "num_key_value_heads": )", shape.kv_heads, R"(, "head_dim": )", shape.head_dim,
                   R"(, "intermediate_size": )", shape.feed_forward, R"(, "vocab_size": )", shape.vocab,
                   R"(, "tie_word_embeddings": )", shape.tied ? "true" : "false",
                   R"(, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "hidden_act": "silu",)",
                   R"( "rope_theta": 500000.0, "eos_token_id": 1})"),
      "");
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *spec;
}

// As shard_worker plans by default on a GPU.
MemoryDemand Demand(int ranks) {
  MemoryDemand demand;
  demand.rank_count = ranks;
  demand.options.max_rows = 512;
  demand.options.max_sampled_rows = 32;
  demand.options.max_sequences = 32;
  demand.options.max_position_count = 8192;
  demand.ring_bytes = 64 << 20;
  demand.steering_bytes = 64 << 20;
  return demand;
}

// Decimal, which is less than what the cards of these names report.
DeviceProfile Card(int64_t gigabytes) { return CudaProfile(gigabytes * 1'000'000'000); }

// The smallest power of two of ranks that fits, or 0.
int SmallestGroup(const Shape& shape, int64_t gigabytes) {
  for (const int ranks : {1, 2, 4, 8}) {
    const auto plan = PlanDevices(SpecOf(shape), Demand(ranks), Card(gigabytes));
    EXPECT_TRUE(plan.ok()) << plan.status();
    if (plan->fits()) return ranks;
  }
  return 0;
}

TEST(MemoryPlanTest, WeightsAreThePublishedParameters) {
  for (const Shape& shape : {kQwen4B, kLlama8B, kQwen14B, kQwen32B, kLlama70B}) {
    for (const int ranks : {1, 8}) {
      const auto plan = PlanDevices(SpecOf(shape), Demand(ranks), Card(80));
      ASSERT_TRUE(plan.ok()) << plan.status();
      double bytes = 0;
      for (const RankMemory& rank : plan->ranks) {
        ASSERT_EQ(rank.lines[0].use, MemoryUse::kWeights);
        bytes += static_cast<double>(rank.lines[0].bytes);
      }
      // Published counts are rounded to 10 million; norms, in F32 and on every rank, are below 0.1 %.
      EXPECT_NEAR(bytes / 2e9, shape.billions, 0.01 + shape.billions * 1e-3) << shape.name;
    }
  }
}

TEST(MemoryPlanTest, SaysHowManyDevicesTheModelsOfThePaperNeed) {
  struct Case {
    Shape shape;
    int on_24, on_48, on_80;
  };
  // Weights in GB a device at these sizes: 8.0; 16.1; 14.8 / 29.5; 16.4 / 32.8 / 65.5; 17.6 / 35.3 / 70.6.
  for (const Case& c : {Case{kQwen4B, 1, 1, 1}, Case{kLlama8B, 1, 1, 1}, Case{kQwen14B, 2, 1, 1},
                        Case{kQwen32B, 4, 2, 1}, Case{kLlama70B, 8, 4, 2}}) {
    EXPECT_EQ(SmallestGroup(c.shape, 24), c.on_24) << c.shape.name;
    EXPECT_EQ(SmallestGroup(c.shape, 48), c.on_48) << c.shape.name;
    EXPECT_EQ(SmallestGroup(c.shape, 80), c.on_80) << c.shape.name;
  }
}

TEST(MemoryPlanTest, KeysAndValuesFillWhatIsLeft) {
  const ModelSpec spec = SpecOf(kLlama70B);
  const auto plan = PlanDevices(spec, Demand(4), Card(48));
  ASSERT_TRUE(plan.ok());
  EXPECT_TRUE(plan->fits());
  // 2 * 80 layers * 2 of 8 heads * 128 * 16 positions * 2 bytes.
  EXPECT_EQ(plan->kv_block_bytes, 2 * 80 * 2 * 128 * 16 * 2);
  EXPECT_GE(plan->kv_positions(), 8192);
  EXPECT_LT(plan->usable_bytes() - plan->needed_bytes(), plan->kv_block_bytes);
  MemoryDemand asked = Demand(4);
  asked.kv_bytes = int64_t{1} << 30;
  const auto less = PlanDevices(spec, asked, Card(48));
  ASSERT_TRUE(less.ok());
  EXPECT_EQ(less->options.kv_block_count, (int64_t{1} << 30) / plan->kv_block_bytes);
  asked.kv_bytes = 1000;
  EXPECT_EQ(ErrorReason(PlanDevices(spec, asked, Card(48)).status()), "FLAG_INVALID");
}

TEST(MemoryPlanTest, RankZeroHasRoomForWhatIsGathered) {
  const auto plan = PlanDevices(SpecOf(kQwen32B), Demand(8), Card(48));
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->collectives.summed_floats, 512 * 5120);
  EXPECT_EQ(plan->collectives.gathered_rows, 32);
  EXPECT_EQ(plan->collectives.widths.size(), 8u);
  const auto bytes_of = [&plan](int rank) {
    for (const MemoryLine& line : plan->ranks[rank].lines) {
      if (line.use == MemoryUse::kCollectives) return line.bytes;
    }
    return int64_t{0};
  };
  // Seven of eight ranks' logits of every sampled row, F32.
  const int64_t gathered = 32 * (151936 - plan->collectives.widths[0]) * 4;
  EXPECT_EQ(bytes_of(0), bytes_of(1) + gathered);
  EXPECT_EQ(bytes_of(1), plan->device.collective_bytes);
}

TEST(MemoryPlanTest, ATooSmallDeviceIsRefusedWithItsBiggestLinesAndAWayOut) {
  const ModelSpec spec = SpecOf(kLlama70B);
  const auto plan = PlanDevices(spec, Demand(2), Card(48));
  ASSERT_TRUE(plan.ok());
  const absl::Status status = CheckFits(spec, Demand(2), *plan);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(status), "MEMORY");
  EXPECT_THAT(std::string(status.message()), HasSubstr("most is weights 65.71 GiB, keys and values"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("start with --ranks 4, which fits"));
  EXPECT_TRUE(CheckFits(spec, Demand(4), *PlanDevices(spec, Demand(4), Card(48))).ok());
}

TEST(MemoryPlanTest, PlansReplayedStepsAndSteeringVectors) {
  MemoryDemand demand = Demand(1);
  demand.steering_bytes = 48 << 20;
  const auto line = [](const RankMemory& rank, MemoryUse use) {
    for (const MemoryLine& each : rank.lines) {
      if (each.use == use) return each.bytes;
    }
    return int64_t{0};
  };
  const ModelSpec spec = SpecOf(kLlama8B);
  const auto cuda = PlanDevices(spec, demand, Card(24));
  ASSERT_TRUE(cuda.ok());
  // Steps of 1, 2, 4, 8, 16, 24 and 32 rows, of two kinds; 32 layers of 16 operations and 8 besides, 64 KiB
  // each.
  EXPECT_EQ(line(cuda->ranks[0], MemoryUse::kGraphs), 14 * (32 * 16 + 8) * (64 << 10));
  EXPECT_EQ(line(cuda->ranks[0], MemoryUse::kSteering), 48 << 20);
  EXPECT_EQ(cuda->ranks[0].host_bytes, (64 << 20) + (48 << 20));
  demand.options.max_sequences = 128;
  // And 40, 48, 56, 64, 80, 96, 112, 128.
  EXPECT_EQ(line(PlanDevices(spec, demand, Card(24))->ranks[0], MemoryUse::kGraphs),
            30 * (32 * 16 + 8) * (64 << 10));
  const auto cpu = PlanDevices(spec, demand, CpuProfile(int64_t{64} << 30));
  ASSERT_TRUE(cpu.ok());
  EXPECT_EQ(line(cpu->ranks[0], MemoryUse::kGraphs), 0);
  EXPECT_EQ(line(cpu->ranks[0], MemoryUse::kSteering), 2 * (48 << 20));
}

TEST(MemoryPlanTest, RanksOfACpuShareTheMachine) {
  const ModelSpec spec = SpecOf(kQwen4B);
  MemoryDemand demand = Demand(2);
  demand.kv_bytes = 256 << 20;
  const auto roomy = PlanDevices(spec, demand, CpuProfile(int64_t{16} << 30));
  const auto tight = PlanDevices(spec, demand, CpuProfile(int64_t{8} << 30));
  ASSERT_TRUE(roomy.ok() && tight.ok());
  EXPECT_TRUE(roomy->fits());
  EXPECT_FALSE(tight->fits());
  EXPECT_EQ(ErrorReason(CheckFits(spec, demand, *tight)), "MEMORY");
  EXPECT_EQ(roomy->needed_bytes(), roomy->ranks[0].device_bytes() + roomy->ranks[1].device_bytes());
  EXPECT_EQ(roomy->ranks[0].host_bytes, 0);
}

TEST(MemoryPlanTest, OutOfMemoryNamesTheLinesAndOtherFaultsStay) {
  const auto plan = PlanDevices(SpecOf(kLlama8B), Demand(1), Card(24));
  ASSERT_TRUE(plan.ok());
  const absl::Status out =
      ExplainOutOfMemory(absl::ResourceExhaustedError("cudaMalloc of 4096 bytes"), *plan, 0);
  EXPECT_EQ(ErrorReason(out), "MEMORY");
  EXPECT_THAT(std::string(out.message()), HasSubstr("cudaMalloc of 4096 bytes"));
  EXPECT_THAT(std::string(out.message()), HasSubstr("weights 14.96 GiB"));
  const absl::Status other = absl::NotFoundError("no such file");
  EXPECT_EQ(ExplainOutOfMemory(other, *plan, 0), other);
}

TEST(MemoryPlanTest, RefusesWhatTheDevicesKernelsDoNotServe) {
  Shape wide = kQwen4B, large = kQwen4B;
  wide.head_dim = 512;
  large.vocab = 1'000'000;
  for (const auto& [shape, named] : {std::pair(wide, "head_dim"), std::pair(large, "vocab_size")}) {
    const auto refused = PlanDevices(SpecOf(shape), Demand(2), Card(80));
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ErrorReason(refused.status()), "MODEL_UNSUPPORTED");
    EXPECT_THAT(refused.status().message(), HasSubstr(named));
    EXPECT_TRUE(PlanDevices(SpecOf(shape), Demand(2), CpuProfile(int64_t{80} << 30)).ok());
  }
  EXPECT_TRUE(PlanDevices(SpecOf(kQwen4B), Demand(2), Card(80)).ok());
}

}  // namespace
}  // namespace sextant
