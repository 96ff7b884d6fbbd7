// Tests of reading tokenizer.json: what is accepted, and what broken and hostile files are answered.
#include "common/tokenizer/tokenizer_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/tokenizer/byte_alphabet.h"
#include "common/tokenizer/tokenizer.h"

namespace sextant {
namespace {

using Json = nlohmann::json;

// A complete file: every byte is a token, "ab" is one more.
Json SmallFile() {
  Json vocabulary = Json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocabulary[SpellBytes(std::string(1, static_cast<char>(byte)))] = byte;
  vocabulary["ab"] = 256;
  return {
      {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", {"a b"}}}},
      {"added_tokens", {{{"id", 257}, {"content", "<s>"}, {"special", true}}}},
      {"normalizer", {{"type", "NFC"}}},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}}}}}},
        {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {257}}}}}}}},
      {"decoder", {{"type", "ByteLevel"}}},
  };
}

std::string ReasonFor(const Json& file) {
  const auto spec = ParseTokenizerJson(file.dump());
  if (!spec.ok()) return ErrorReason(spec.status());
  const auto tokenizer = Tokenizer::Create(*spec);
  return tokenizer.ok() ? "" : ErrorReason(tokenizer.status());
}

TEST(TokenizerJson, ReadsACompleteFile) {
  const auto spec = ParseTokenizerJson(SmallFile().dump());
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto tokenizer = Tokenizer::Create(*spec);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto ids = (*tokenizer)->Encode("ab\n", {.add_special = true});
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(*ids, (std::vector<int32_t>{257, 256, '\n'}));
  EXPECT_EQ((*tokenizer)->vocab_size(), 258);
}

TEST(TokenizerJson, ReadsBothSpellingsOfMerges) {
  Json file = SmallFile();
  file["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  EXPECT_EQ(ReasonFor(file), "");
}

struct Fault {
  const char* name;
  void (*break_it)(Json&);
  const char* reason;
};

class TokenizerJsonFault : public ::testing::TestWithParam<Fault> {};

TEST_P(TokenizerJsonFault, IsRefusedWithItsReason) {
  Json file = SmallFile();
  GetParam().break_it(file);
  EXPECT_EQ(ReasonFor(file), GetParam().reason);
}

constexpr char kInvalid[] = "TOKENIZER_INVALID";
constexpr char kUnsupported[] = "TOKENIZER_UNSUPPORTED";

INSTANTIATE_TEST_SUITE_P(
    All, TokenizerJsonFault,
    ::testing::Values(
        Fault{"NoModel", [](Json& f) { f.erase("model"); }, kInvalid},
        Fault{"ModelIsAList", [](Json& f) { f["model"] = Json::array(); }, kInvalid},
        Fault{"VocabIsAString", [](Json& f) { f["model"]["vocab"] = "x"; }, kInvalid},
        Fault{"NegativeId", [](Json& f) { f["model"]["vocab"]["ab"] = -1; }, kInvalid},
        Fault{"FractionalId", [](Json& f) { f["model"]["vocab"]["ab"] = 1.5; }, kInvalid},
        Fault{"HugeId", [](Json& f) { f["model"]["vocab"]["ab"] = 4000000000u; }, kInvalid},
        Fault{"WrappingId", [](Json& f) { f["model"]["vocab"]["ab"] = UINT64_MAX; }, kInvalid},
        Fault{"DuplicateId", [](Json& f) { f["model"]["vocab"]["ab"] = 7; }, kInvalid},
        Fault{"LongToken", [](Json& f) { f["model"]["vocab"][std::string(70000, 'a')] = 300; }, kInvalid},
        Fault{"ByteWithoutToken", [](Json& f) { f["model"]["vocab"].erase("a"); }, kInvalid},
        Fault{"MergesMissing", [](Json& f) { f["model"].erase("merges"); }, kInvalid},
        Fault{"MergeOfThree", [](Json& f) { f["model"]["merges"] = {"a b c"}; }, kInvalid},
        Fault{"MergeIsANumber", [](Json& f) { f["model"]["merges"] = {7}; }, kInvalid},
        Fault{"MergeOfUnknown", [](Json& f) { f["model"]["merges"] = {"a c"}; }, kInvalid},
        Fault{"AddedWithoutContent",
              [](Json& f) {
                f["added_tokens"] = {{{"id", 1}}};
              },
              kInvalid},
        Fault{"AddedIsAnObject", [](Json& f) { f["added_tokens"] = Json::object(); }, kInvalid},
        Fault{"AddedIdHuge", [](Json& f) { f["added_tokens"][0]["id"] = 1 << 30; }, kInvalid},
        Fault{"TemplateIdUnknown",
              [](Json& f) { f["post_processor"]["special_tokens"]["<s>"]["ids"] = {9999}; }, kInvalid},
        Fault{"TemplateNameUnknown", [](Json& f) { f["post_processor"]["special_tokens"] = Json::object(); },
              kInvalid},
        Fault{"TypeIsANumber", [](Json& f) { f["normalizer"]["type"] = 1; }, kInvalid},
        Fault{"SequenceOfNothing",
              [](Json& f) {
                f["pre_tokenizer"] = {{"type", "Sequence"}};
              },
              kInvalid},
        Fault{"ExpressionBroken",
              [](Json& f) {
                const Json split = {
                    {"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
                f["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {split, f["pre_tokenizer"]}}};
              },
              kInvalid},
        Fault{"Unigram", [](Json& f) { f["model"]["type"] = "Unigram"; }, kUnsupported},
        Fault{"ByteFallback", [](Json& f) { f["model"]["byte_fallback"] = true; }, kUnsupported},
        Fault{"Dropout", [](Json& f) { f["model"]["dropout"] = 0.1; }, kUnsupported},
        Fault{"OtherNormalizer", [](Json& f) { f["normalizer"]["type"] = "Lowercase"; }, kUnsupported},
        Fault{"Metaspace", [](Json& f) { f["pre_tokenizer"]["type"] = "Metaspace"; }, kUnsupported},
        Fault{"PrefixSpace", [](Json& f) { f["pre_tokenizer"]["add_prefix_space"] = true; }, kUnsupported},
        Fault{"NoPreTokenizer", [](Json& f) { f["pre_tokenizer"] = nullptr; }, kUnsupported},
        Fault{"OtherDecoder", [](Json& f) { f["decoder"]["type"] = "WordPiece"; }, kUnsupported},
        Fault{"OtherPostProcessor", [](Json& f) { f["post_processor"]["type"] = "BertProcessing"; },
              kUnsupported}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(TokenizerJson, RefusesWhatIsNotJson) {
  for (const std::string& text : {std::string(), std::string("{"), std::string("[]"), std::string("\xff"),
                                  std::string("{\"a\":\"\xC3\"}"), std::string(100'000, '[')}) {
    EXPECT_EQ(ErrorReason(ParseTokenizerJson(text).status()), kInvalid);
  }
}

// Wherever the arrays lie: copying, comparing or destroying them recursively would overflow the stack.
TEST(TokenizerJson, RefusesDeepNesting) {
  constexpr int kDepth = 100'000;
  const std::string deep = std::string(kDepth, '[') + std::string(kDepth, ']');
  const std::string split =
      absl::StrCat(R"({"type": "Split", "pattern": {"String": " "}, "behavior": )", deep, "}");
  for (const char* name : {"pre_tokenizer", "unknown"}) {
    Json without = SmallFile();
    without.erase(name);
    std::string text = without.dump();
    text.back() = ',';
    absl::StrAppend(&text, "\"", name, "\": ", name == std::string("unknown") ? deep : split, "}");
    const absl::Status status = ParseTokenizerJson(text).status();
    EXPECT_EQ(ErrorReason(status), kInvalid) << name;
    EXPECT_NE(std::string(status.message()).find("nested deeper than 32"), std::string::npos) << status;
  }
  EXPECT_EQ(ErrorReason(ParseChatTemplate(absl::StrCat(R"({"chat_template": )", deep, "}")).status()),
            kInvalid);
}

TEST(TokenizerJson, RefusesAKeyGivenTwice) {
  std::string text = SmallFile().dump();
  text.back() = ',';
  EXPECT_EQ(ErrorReason(ParseTokenizerJson(text + R"("model": {}})").status()), kInvalid);
}

TEST(TokenizerJson, NamesTheFolderThatHasNone) {
  const auto tokenizer = Tokenizer::FromModel("/nonexistent");
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrorReason(tokenizer.status()), "TOKENIZER_NOT_FOUND");
}

TEST(ChatTemplateSource, TakesTheDefaultOfSeveral) {
  EXPECT_EQ(*ParseChatTemplate(R"({"chat_template": "x"})"), "x");
  EXPECT_EQ(*ParseChatTemplate(R"({"chat_template": [{"name": "tool_use", "template": "t"},
                                                     {"name": "default", "template": "d"}]})"),
            "d");
  EXPECT_EQ(*ParseChatTemplate("{}"), "");
  EXPECT_EQ(ErrorReason(ParseChatTemplate("nope").status()), kInvalid);
}

}  // namespace
}  // namespace sextant
