// Tests of recognising chat templates and of what they make of messages.
#include "common/tokenizer/chat_template.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace sextant {
namespace {

// A tokenizer of single bytes and the markers of both families.
std::unique_ptr<Tokenizer> MakeTokenizer(bool with_markers = true) {
  TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) spec.token_bytes.push_back(std::string(1, static_cast<char>(byte)));
  spec.mergeable.assign(256, true);
  if (with_markers) {
    for (const char* content : {"<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>",
                                "<|end_header_id|>", "<|eot_id|>"}) {
      const int32_t id = static_cast<int32_t>(spec.token_bytes.size());
      spec.token_bytes.push_back(content);
      spec.mergeable.push_back(false);
      spec.added_tokens.push_back({.id = id, .content = content, .special = true});
    }
  }
  return *Tokenizer::Create(std::move(spec));
}

std::string Rendered(absl::string_view source, const std::vector<ChatTurn>& turns) {
  const auto tokenizer = MakeTokenizer();
  const auto ids = ChatTemplate::Recognise(source).Render(*tokenizer, turns);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? tokenizer->Decode(*ids, false) : "";
}

constexpr char kPlainChatMl[] =
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'}}";
constexpr char kChatMlWithDefault[] =
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'}}";
constexpr char kThinkingChatMl[] = "<|im_start|> <|im_end|> content.split('</think>')";
constexpr char kLlama3[] = "<|start_header_id|> <|eot_id|>";
constexpr char kLlama31[] = "<|start_header_id|> Cutting Knowledge Date: December 2023 <|eot_id|>";

TEST(ChatTemplate, RecognisesFamilies) {
  EXPECT_EQ(ChatTemplate::Recognise(kPlainChatMl).name(), "chatml");
  EXPECT_EQ(ChatTemplate::Recognise(kLlama3).name(), "llama3");
  EXPECT_EQ(ChatTemplate::Recognise("[INST] {{ message }} [/INST]").name(), "");
  EXPECT_EQ(ChatTemplate::Recognise("").name(), "");
}

TEST(ChatTemplate, RendersChatMl) {
  EXPECT_EQ(Rendered(kPlainChatMl, {{"user", "Hi"}, {"assistant", "Yes?"}}),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, AddsTheTemplatesOwnSystemTurn) {
  EXPECT_EQ(
      Rendered(kChatMlWithDefault, {{"user", "Hi"}}),
      "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(Rendered(kChatMlWithDefault, {{"system", "Be brief."}}),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, DropsThoughtsBeforeTheLastQuestion) {
  const ChatTurn answer = {"assistant", "<think>\nhm\n</think>\n\nFour"};
  EXPECT_EQ(Rendered(kThinkingChatMl, {{"user", "2+2"}, answer, {"user", "Sure?"}}),
            "<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\nFour<|im_end|>\n"
            "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(
      Rendered(kThinkingChatMl, {{"user", "2+2"}, answer}),
      "<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n<think>\nhm\n</think>\n\nFour<|im_end|>\n"
      "<|im_start|>assistant\n");
}

TEST(ChatTemplate, RendersLlama3) {
  EXPECT_EQ(Rendered(kLlama3, {{"user", " Hi \n"}}),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(Rendered(kLlama31, {{"system", "Be brief."}, {"user", "Hi"}}),
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
            "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(ChatTemplate, KeepsMarkersInMessagesAsText) {
  const auto tokenizer = MakeTokenizer();
  const auto ids = ChatTemplate::Recognise(kPlainChatMl).Render(*tokenizer, {{"user", "<|im_end|>"}});
  ASSERT_TRUE(ids.ok());
  const int32_t marker = *tokenizer->AddedTokenId("<|im_end|>");
  EXPECT_EQ(std::count(ids->begin(), ids->end(), marker), 1);
}

TEST(ChatTemplate, SaysWhatToDoInstead) {
  const auto tokenizer = MakeTokenizer();
  const std::vector<ChatTurn> hi = {{"user", "Hi"}};
  const auto reason = [&](absl::string_view source, const std::vector<ChatTurn>& turns, bool markers = true) {
    return ErrorReason(ChatTemplate::Recognise(source).Render(*MakeTokenizer(markers), turns).status());
  };
  EXPECT_EQ(reason("", hi), "CHAT_TEMPLATE_UNSUPPORTED");
  EXPECT_EQ(reason(kLlama3, hi, false), "CHAT_TEMPLATE_UNSUPPORTED");
  EXPECT_EQ(reason(kLlama3, {}), "CHAT_EMPTY");
  EXPECT_EQ(reason(kLlama3, {{"tool", "x"}}), "CHAT_ROLE_UNKNOWN");
}

}  // namespace
}  // namespace sextant
