// What --plan answers, and that a decoder's flags count in it.
#include "services/lens_decoder/decoder_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace sextant {
namespace {

using testing::HasSubstr;

class DecoderMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    config_.model = absl::StrCat(testing::TempDir(), "/decoder_memory.", getpid());
    std::filesystem::create_directory(config_.model);
    // Llama-3.1-70B's, as far as they matter.
    std::ofstream(config_.model + "/config.json") << R"({
      "model_type": "llama", "num_hidden_layers": 80, "hidden_size": 8192, "num_attention_heads": 64,
      "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 28672, "vocab_size": 128256,
      "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 500000.0,
      "tie_word_embeddings": false, "eos_token_id": 1})";
    config_.max_batch_rows = 1024;
    config_.device.kind = DeviceKind::kCuda;
  }
  void TearDown() override { std::filesystem::remove_all(config_.model); }

  std::string Text() const {
    const auto text = DecoderPlanText(config_);
    EXPECT_TRUE(text.ok()) << text.status();
    return *text;
  }

  DecoderConfig config_;
};

TEST_F(DecoderMemoryTest, LinesAreThoseOfTheModel) {
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("cuda"));
  EXPECT_THAT(text, HasSubstr("  weights               1.96"));
  EXPECT_THAT(text, HasSubstr("  batches               0.02"));
  EXPECT_THAT(text, testing::Not(HasSubstr("fit"))) << "of a device nobody named";
  config_.threads = 4;
  EXPECT_THAT(Text(), HasSubstr("  batches               0.06"));
}

TEST_F(DecoderMemoryTest, SaysWhetherItFits) {
  config_.device_memory_bytes = 8'000'000'000;
  EXPECT_THAT(Text(), HasSubstr("it fits"));
  config_.device_memory_bytes = 2'000'000'000;
  EXPECT_THAT(Text(), HasSubstr("it does not fit: a lens decoder needs 2.72 GiB"));
}

TEST_F(DecoderMemoryTest, AModelThatIsNotThereIsAnError) {
  config_.model += "/missing";
  EXPECT_FALSE(DecoderPlanText(config_).ok());
}

}  // namespace
}  // namespace sextant
