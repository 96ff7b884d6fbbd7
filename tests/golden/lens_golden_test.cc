// Compares the lens's readings of every layer with those worked out from transformers' rows in double
// precision.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "common/model/lens_head.h"
#include "common/model/testing/model_runner.h"
#include "tests/golden/golden_file.h"

namespace sextant {
namespace {

constexpr int32_t kTopK = 5;
// Rows agree within 1e-5 (model_golden_test), and a log-probability moves by about as much as a logit, whose
// size is some tens here.
constexpr double kTolerance = 1e-3;

// The readings of one site: [layers, positions], top_* with kTopK behind.
struct SiteReadings {
  std::vector<int32_t> top_ids, target_ranks;
  std::vector<float> top_logprobs, entropy, kl, target_logprobs;
};

class Lens {
 public:
  explicit Lens(const std::string& model_path, const std::string& golden_name) : golden(golden_name) {
    auto opened = OpenModel(model_path);
    EXPECT_TRUE(opened.ok()) << opened.status();
    source_ = *std::move(opened);
    std::vector<int32_t> tokens = golden.Ints("token_ids");
    targets_.assign(tokens.begin() + 1, tokens.end());
    tokens.pop_back();
    positions = static_cast<int64_t>(tokens.size());
    auto result = RunSequence(*source_, {}, tokens);
    EXPECT_TRUE(result.ok()) << result.status();
    result_ = *std::move(result);
    backend_ = *MakeCpuBackend({});
    stream_ = *backend_->CreateStream();
    head_ = *LoadLensHead(*source_, *backend_, DType::kF32);
  }

  SiteReadings Read(Site site, bool by_residual) {
    const int64_t layers = spec().layer_count;
    SiteReadings out;
    for (int64_t layer = 0; layer < layers; ++layer)
      ReadLayer(site, static_cast<int32_t>(layer), by_residual, out);
    return out;
  }

  const ModelSpec& spec() const { return source_->spec(); }

  const GoldenFile golden;
  int64_t positions = 0;

 private:
  // Groups of two rows: the layer's and the final one's.
  void ReadLayer(Site site, int32_t layer, bool by_residual, SiteReadings& out) {
    const int64_t hidden = spec().hidden_size;
    const int32_t last = static_cast<int32_t>(spec().layer_count) - 1;
    std::vector<float> rows;
    LensBatch batch;
    for (int64_t position = 0; position < positions; ++position) {
      const float* post = Row(v1::SITE_RESID_POST, layer, position);
      const float* own = Row(site, layer, position);
      const float* final_row = Row(v1::SITE_RESID_POST, last, position);
      rows.insert(rows.end(), own, own + hidden);
      rows.insert(rows.end(), final_row, final_row + hidden);
      batch.row_info.push_back({static_cast<int32_t>(position), by_residual ? Rms(post) : 0.0f});
      batch.row_info.push_back({static_cast<int32_t>(position), 0.0f});
      batch.final_rows.push_back(static_cast<int32_t>(2 * position + 1));
      batch.targets.push_back(targets_[position]);
    }
    const int64_t count = 2 * positions;
    batch.rows = Tensor::Of(rows.data(), DType::kF32, count, hidden);
    batch.target_count = 1;
    batch.top_k = kTopK;
    std::vector<int32_t> top_ids(count * kTopK), ranks(count);
    std::vector<float> top_logprobs(count * kTopK), entropy(count), kl(count), logprobs(count);
    backend_->Lens(*stream_, batch, head_.norm(), head_.norm_eps, *head_.head,
                   {.top_ids = top_ids.data(),
                    .top_logprobs = top_logprobs.data(),
                    .entropy_nats = entropy.data(),
                    .kl_final_nats = kl.data(),
                    .target_logprobs = logprobs.data(),
                    .target_ranks = ranks.data()});
    ASSERT_TRUE(backend_->Synchronize(*stream_).ok());
    for (int64_t i = 0; i < count; i += 2) {
      out.top_ids.insert(out.top_ids.end(), &top_ids[i * kTopK], &top_ids[i * kTopK] + kTopK);
      out.top_logprobs.insert(out.top_logprobs.end(), &top_logprobs[i * kTopK],
                              &top_logprobs[i * kTopK] + kTopK);
      out.entropy.push_back(entropy[i]);
      out.kl.push_back(kl[i]);
      out.target_logprobs.push_back(logprobs[i]);
      out.target_ranks.push_back(ranks[i]);
    }
  }

  const float* Row(Site site, int32_t layer, int64_t position) const {
    return result_.rows.at({site, layer}).data() + position * spec().hidden_size;
  }

  float Rms(const float* row) const {
    double sum = 0;
    for (int64_t i = 0; i < spec().hidden_size; ++i) sum += static_cast<double>(row[i]) * row[i];
    return static_cast<float>(std::sqrt(sum / static_cast<double>(spec().hidden_size) + spec().norm_eps));
  }

  std::unique_ptr<ModelSource> source_;
  std::vector<int32_t> targets_;
  SequenceResult result_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  LensHead head_;
};

void ExpectNear(const std::vector<float>& got, const std::vector<float>& want, const std::string& name) {
  ASSERT_EQ(got.size(), want.size()) << name;
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    worst =
        std::max(worst, std::abs(static_cast<double>(got[i]) - want[i]) / std::max(1.0f, std::abs(want[i])));
  }
  std::printf("  %s %.1e\n", name.c_str(), worst);
  EXPECT_LT(worst, kTolerance) << name;
}

// Ids must agree wherever the golden's next-best candidate is not a tie within the tolerance.
void ExpectSameTop(const std::vector<int32_t>& got, const std::vector<int32_t>& want,
                   const std::vector<float>& logprobs, const std::string& name) {
  ASSERT_EQ(got.size(), want.size()) << name;
  int64_t compared = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const size_t rank = i % kTopK;
    const bool tied_above = rank > 0 && logprobs[i - 1] - logprobs[i] < 2 * kTolerance;
    // The candidate behind the last one is not in the golden.
    const bool tied_below = rank + 1 == kTopK || logprobs[i] - logprobs[i + 1] < 2 * kTolerance;
    if (tied_above || tied_below) continue;
    EXPECT_EQ(got[i], want[i]) << name << " " << i;
    ++compared;
  }
  EXPECT_GT(compared, static_cast<int64_t>(got.size()) / 2) << name;
}

// A rank counts the logits above the target's; those within the tolerance may fall on either side, and there
// are the more of them the further down it is.
void ExpectSameRanks(const std::vector<int32_t>& got, const std::vector<int32_t>& want,
                     const std::string& name) {
  ASSERT_EQ(got.size(), want.size()) << name;
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], want[i] <= 10 ? 0 : std::max(1.0, 2e-3 * want[i])) << name << " " << i;
  }
}

void ExpectGoldenReadings(Lens& lens) {
  struct Case {
    Site site;
    bool by_residual;
    const char* name;
  };
  for (const Case& test :
       {Case{v1::SITE_RESID_POST, false, "resid_post.own"}, Case{v1::SITE_ATTN_OUT, false, "attn_out.own"},
        Case{v1::SITE_ATTN_OUT, true, "attn_out.residual"},
        Case{v1::SITE_MLP_OUT, true, "mlp_out.residual"}}) {
    const SiteReadings got = lens.Read(test.site, test.by_residual);
    const std::string name = std::string("lens.") + test.name + ".";
    ExpectNear(got.entropy, lens.golden.Floats(name + "entropy"), name + "entropy");
    ExpectNear(got.kl, lens.golden.Floats(name + "kl"), name + "kl");
    ExpectNear(got.target_logprobs, lens.golden.Floats(name + "target_logprob"), name + "target_logprob");
    const std::vector<float> top_logprobs = lens.golden.Floats(name + "top_logprobs");
    ExpectNear(got.top_logprobs, top_logprobs, name + "top_logprobs");
    ExpectSameTop(got.top_ids, lens.golden.Ints(name + "top_ids"), top_logprobs, name + "top_ids");
    ExpectSameRanks(got.target_ranks, lens.golden.Ints(name + "target_rank"), name + "target_rank");
  }
}

TEST(LensGoldenTest, Llama31) {
  Lens lens(GoldenFile::Folder() + "/models/llama31_tiny", "llama31_tiny");
  ExpectGoldenReadings(lens);
}

TEST(LensGoldenTest, Qwen3) {
  Lens lens(GoldenFile::Folder() + "/models/qwen3_tiny", "qwen3_tiny");
  ExpectGoldenReadings(lens);
}

TEST(LensGoldenTest, SmolLM2) {
  const std::optional<std::string> model = QuickstartModel();
  if (!model.has_value()) GTEST_SKIP() << "the quickstart's model is not here; set SEXTANT_QUICKSTART_MODEL";
  Lens lens(*model, "smollm2");
  ExpectGoldenReadings(lens);
}

// Negative control: readings of another site, or scaled otherwise, are not within the tolerance.
TEST(LensGoldenTest, ComparisonSeesAnotherSiteAndAnotherScale) {
  Lens lens(GoldenFile::Folder() + "/models/qwen3_tiny", "qwen3_tiny");
  const std::vector<float> want = lens.golden.Floats("lens.attn_out.residual.entropy");
  for (const SiteReadings& wrong : {lens.Read(v1::SITE_MLP_OUT, true), lens.Read(v1::SITE_ATTN_OUT, false)}) {
    double worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(wrong.entropy[i]) - want[i]));
    }
    EXPECT_GT(worst, 10 * kTolerance);
  }
}

}  // namespace
}  // namespace sextant
