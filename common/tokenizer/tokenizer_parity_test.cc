// Compares ids with those of Hugging Face tokenizers, committed by tests/golden/tokenizer_parity.py.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/tokenizer/chat_template.h"
#include "common/tokenizer/tokenizer.h"

namespace sextant {
namespace {

using Json = nlohmann::json;

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// A model's own tokenizer files, which are too large to be committed; "" when nobody says where they are.
std::string TestData(const std::string& name) {
  const std::string folder = Variable("SEXTANT_TESTDATA");
  return folder.empty() ? "" : folder + "/tokenizers/" + name;
}

struct Family {
  const char* sample;                // under tests/golden/tokenizers
  std::vector<std::string> sources;  // places to look for the model, the first that exists counts
};

class TokenizerParity : public ::testing::TestWithParam<Family> {};

TEST_P(TokenizerParity, GivesTheReferencesIds) {
  const std::string sample_path =
      Variable("SEXTANT_SOURCE_DIR") + "/tests/golden/tokenizers/" + GetParam().sample + ".json";
  std::string model;
  for (const std::string& source : GetParam().sources) {
    if (!source.empty() && model.empty() && std::filesystem::exists(source)) model = source;
  }
  if (model.empty()) {
    GTEST_SKIP() << "the tokenizer of " << GetParam().sample
                 << " is not on this machine; set SEXTANT_TESTDATA (folder with tokenizers/) or SEXTANT_GGUF";
  }
  std::ifstream stream(sample_path);
  const Json sample = Json::parse(stream, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(sample.is_object()) << sample_path;
  const auto tokenizer = Tokenizer::FromModel(model);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();

  ASSERT_GE(sample["strings"].size(), 100u);
  for (const Json& entry : sample["strings"]) {
    const std::string text = entry["text"];
    const auto ids = (*tokenizer)->Encode(text, {.parse_special = entry["parse_special"]});
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, entry["ids"].get<std::vector<int32_t>>()) << entry["text"];
    EXPECT_EQ((*tokenizer)->Decode(*ids, false), entry.value("decoded", text));
  }
  const ChatTemplate chat = ChatTemplate::Recognise((*tokenizer)->chat_template());
  for (const Json& entry : sample["chats"]) {
    std::vector<ChatTurn> turns;
    for (const Json& message : entry["messages"]) turns.push_back({message["role"], message["content"]});
    const auto ids = chat.Render(**tokenizer, turns);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, entry["ids"].get<std::vector<int32_t>>()) << entry["messages"];
  }
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerParity,
                         ::testing::Values(Family{"llama3_1", {TestData("llama3_1")}},
                                           Family{"qwen3", {TestData("qwen3")}},
                                           Family{"smollm2",
                                                  {Variable("SEXTANT_GGUF"),
                                                   Variable("SEXTANT_SOURCE_DIR") +
                                                       "/build/models/SmolLM2-135M-Instruct.Q4_1.gguf"}}),
                         [](const auto& info) { return std::string(info.param.sample); });

}  // namespace
}  // namespace sextant
