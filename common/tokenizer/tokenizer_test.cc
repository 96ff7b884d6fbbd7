// Tests of encoding and decoding on a small vocabulary made by hand.
#include "common/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/tokenizer/bpe.h"
#include "common/tokenizer/normalizer.h"
#include "common/tokenizer/pipeline_json.h"
#include "common/tokenizer/streaming_detokenizer.h"
#include "common/tokenizer/utf8.h"

namespace sextant {
namespace {

using ::testing::ElementsAre;

constexpr char kReplacement[] = "\xEF\xBF\xBD";

// All bytes as ids 0..255, then "he" 256, "ll" 257, "hell" 258, "hello" 259, " w" 260.
TokenizerSpec SmallSpec() {
  TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) spec.token_bytes.push_back(std::string(1, static_cast<char>(byte)));
  for (const char* bytes : {"he", "ll", "hell", "hello", " w"}) spec.token_bytes.push_back(bytes);
  spec.mergeable.assign(spec.token_bytes.size(), true);
  spec.merges = {{'l', 'l', 257}, {'h', 'e', 256}, {256, 257, 258}, {258, 'o', 259}, {' ', 'w', 260}};
  spec.split_expressions = {kGpt2Expression};
  return spec;
}

void AddToken(TokenizerSpec* spec, AddedToken token) {
  token.id = static_cast<int32_t>(spec->token_bytes.size());
  spec->token_bytes.push_back(token.content);
  spec->mergeable.push_back(false);
  spec->added_tokens.push_back(token);
}

std::unique_ptr<Tokenizer> Make(TokenizerSpec spec) {
  auto tokenizer = Tokenizer::Create(std::move(spec));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<int32_t> Encode(const Tokenizer& tokenizer, absl::string_view text,
                            Tokenizer::EncodeOptions options = {}) {
  const auto ids = tokenizer.Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.value_or(std::vector<int32_t>());
}

TEST(Tokenizer, MergesByRankNotByLength) {
  const auto tokenizer = Make(SmallSpec());
  EXPECT_THAT(Encode(*tokenizer, "hello w"), ElementsAre(259, 260));
  EXPECT_THAT(Encode(*tokenizer, "helllo"), ElementsAre(258, 'l', 'o'));
  EXPECT_THAT(Encode(*tokenizer, ""), ElementsAre());
}

TEST(Tokenizer, NeverMergesAcrossPieces) {
  TokenizerSpec spec = SmallSpec();
  spec.split_expressions = {"l"};
  EXPECT_THAT(Encode(*Make(spec), "hello"), ElementsAre(256, 'l', 'l', 'o'));
}

TEST(Tokenizer, WholePiecesWinOverMerges) {
  TokenizerSpec spec = SmallSpec();
  spec.merges.pop_back();
  EXPECT_THAT(Encode(*Make(spec), " w"), ElementsAre(' ', 'w'));
  spec.whole_pieces = true;
  EXPECT_THAT(Encode(*Make(spec), " w"), ElementsAre(260));
}

TEST(Tokenizer, DropsBytesThatHaveNoToken) {
  TokenizerSpec spec = SmallSpec();
  spec.mergeable[7] = false;
  spec.split_expressions = {"[^ ]+"};
  EXPECT_THAT(Encode(*Make(spec), "h\a\aello"), ElementsAre(259)) << "as the reference implementation does";
  EXPECT_THAT(Encode(*Make(spec), "\a"), ElementsAre());
}

TEST(Tokenizer, ReadsSpecialTokensOnlyWhenAsked) {
  TokenizerSpec spec = SmallSpec();
  AddToken(&spec, {.content = "<s>", .special = true});   // 261
  AddToken(&spec, {.content = "<s>x", .special = true});  // 262
  AddToken(&spec, {.content = "<tool>"});                 // 263
  const auto tokenizer = Make(spec);
  EXPECT_THAT(Encode(*tokenizer, "<s>"), ElementsAre('<', 's', '>'));
  EXPECT_THAT(Encode(*tokenizer, "<s>h<s>x", {.parse_special = true}), ElementsAre(261, 'h', 262));
  EXPECT_THAT(Encode(*tokenizer, "<tool>"), ElementsAre(263))
      << "added words that are not special always count";
  EXPECT_EQ(tokenizer->Decode({261, 'h'}, /*skip_special=*/true), "h");
  EXPECT_EQ(tokenizer->Decode({261, 'h'}, /*skip_special=*/false), "<s>h");
  EXPECT_EQ(tokenizer->AddedTokenId("<s>x"), 262);
  EXPECT_EQ(tokenizer->AddedTokenId("none"), std::nullopt);
}

TEST(Tokenizer, AddedTokensStripSpacesAndStandAlone) {
  TokenizerSpec spec = SmallSpec();
  AddToken(&spec, {.content = "<m>", .strip_left = true, .strip_right = true});  // 261
  AddToken(&spec, {.content = "ab", .single_word = true});                       // 262
  const auto tokenizer = Make(spec);
  EXPECT_THAT(Encode(*tokenizer, "x  <m> \n y"), ElementsAre('x', 261, 'y'));
  EXPECT_THAT(Encode(*tokenizer, "ab abc"), ElementsAre(262, ' ', 'a', 'b', 'c'));
}

TEST(Tokenizer, AddsItsOwnTokensOnlyWhenAsked) {
  TokenizerSpec spec = SmallSpec();
  AddToken(&spec, {.content = "<s>", .special = true});
  spec.prefix_ids = {261};
  spec.suffix_ids = {'!'};
  const auto tokenizer = Make(spec);
  EXPECT_THAT(Encode(*tokenizer, "he", {.add_special = true}), ElementsAre(261, 256, '!'));
  EXPECT_THAT(Encode(*tokenizer, "he"), ElementsAre(256));
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  const auto ids = Make(SmallSpec())->Encode("\xC3(", {});
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(ids.status()), "TEXT_NOT_UTF8");
}

TEST(Tokenizer, UnknownIdsHaveNoText) {
  const auto tokenizer = Make(SmallSpec());
  for (const int32_t id : {-1, 261, INT32_MAX}) {
    EXPECT_EQ(tokenizer->TokenBytes(id), "");
    EXPECT_EQ(tokenizer->TextOf(id), "");
    EXPECT_FALSE(tokenizer->IsSpecial(id));
  }
}

TEST(Tokenizer, RefusesPartsThatDoNotFit) {
  TokenizerSpec no_byte = SmallSpec();
  no_byte.mergeable['a'] = false;
  TokenizerSpec bad_merge = SmallSpec();
  bad_merge.merges.push_back({1, 2, 999});
  TokenizerSpec bad_prefix = SmallSpec();
  bad_prefix.prefix_ids = {-1};
  TokenizerSpec bad_expression = SmallSpec();
  bad_expression.split_expressions = {"("};
  TokenizerSpec long_expression = SmallSpec();
  long_expression.split_expressions = {std::string(5000, 'a')};
  TokenizerSpec bad_added = SmallSpec();
  bad_added.added_tokens.push_back({.id = 5000, .content = "x"});
  for (const TokenizerSpec& spec :
       {no_byte, bad_merge, bad_prefix, bad_expression, long_expression, bad_added}) {
    const auto tokenizer = Tokenizer::Create(spec);
    EXPECT_EQ(ErrorReason(tokenizer.status()), "TOKENIZER_INVALID") << tokenizer.status();
  }
}

TEST(Tokenizer, GivesUpOnExpressionsThatExplode) {
  TokenizerSpec spec = SmallSpec();
  spec.split_expressions = {"(a|aa)+b(*COMMIT)x|(a+)+$y"};
  const auto ids = Make(spec)->Encode(std::string(5000, 'a'), {});
  EXPECT_EQ(ErrorReason(ids.status()), "TEXT_TOO_COMPLEX") << ids.status();
}

TEST(Tokenizer, EmptyMatchesTakeNothing) {
  TokenizerSpec spec = SmallSpec();
  spec.split_expressions = {"x*", "(?=b)", "(?<=x)"};
  EXPECT_EQ(Encode(*Make(spec), "abxxé").size(), 6u);
}

TEST(StreamingDetokenizer, ShowsOnlyWholeCharacters) {
  const auto tokenizer = Make(SmallSpec());
  StreamingDetokenizer stream(*tokenizer, /*skip_special=*/false);
  EXPECT_EQ(stream.Push('a'), "a");
  EXPECT_EQ(stream.Push(0xF0), "");
  EXPECT_EQ(stream.Push(0x9F), "");
  EXPECT_EQ(stream.Push(0x98), "");
  EXPECT_EQ(stream.Push(0x80), "\xF0\x9F\x98\x80");
  EXPECT_EQ(stream.Push(0xE2), "");
  EXPECT_EQ(stream.Push('b'), std::string(kReplacement) + "b");
  EXPECT_EQ(stream.Push(0xE2), "");
  EXPECT_EQ(stream.Flush(), kReplacement);
  EXPECT_EQ(stream.Flush(), "");
}

TEST(StreamingDetokenizer, AgreesWithDecode) {
  const auto tokenizer = Make(SmallSpec());
  uint32_t state = 1;
  for (int round = 0; round < 200; ++round) {
    std::vector<int32_t> ids;
    for (int i = 0; i < 20; ++i) {
      state = state * 1664525 + 1013904223;
      ids.push_back(static_cast<int32_t>((state >> 16) % 261));
    }
    StreamingDetokenizer stream(*tokenizer, false);
    std::string text;
    for (const int32_t id : ids) text += stream.Push(id);
    text += stream.Flush();
    EXPECT_EQ(text, tokenizer->Decode(ids, false));
  }
}

TEST(Utf8, KnowsWellFormed) {
  EXPECT_TRUE(IsValidUtf8("a\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80"));
  for (const char* bad :
       {"\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\x80", "\xE4\xB8", "\xF8\x88\x80\x80\x80"}) {
    EXPECT_FALSE(IsValidUtf8(bad));
  }
}

TEST(Utf8, ReplacesMaximalIllFormedParts) {
  std::string text;
  EXPECT_EQ(AppendLossyUtf8("\xF0\x9F\x98"
                            "a\xED\xA0\x80",
                            true, &text),
            7u);
  const std::string r = kReplacement;
  EXPECT_EQ(text, r + "a" + r + r + r);
}

TEST(Normalizer, ComposesAsUnicode9Does) {
  EXPECT_EQ(NormalizeNfc("e\xCC\x81"), "\xC3\xA9");
  EXPECT_EQ(NormalizeNfc("\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB"), "\xED\x95\x9C");
  // U+0316 (class 220) comes before U+0301 (230), and does not keep it from composing.
  EXPECT_EQ(NormalizeNfc("e\xCC\x81\xCC\x96"), NormalizeNfc("e\xCC\x96\xCC\x81"));
  // U+1AC4 came with Unicode 14: it stays where it is.
  EXPECT_EQ(NormalizeNfc("a\xE1\xAB\x84\xE0\xAA\xBC"), "a\xE1\xAB\x84\xE0\xAA\xBC");
  std::string marks = "a";
  for (int i = 0; i < 100'000; ++i) marks += "\xCC\x81\xCC\x96";
  EXPECT_EQ(NormalizeNfc(marks).size(), marks.size() - 1) << "one mark composes with the letter";
}

}  // namespace
}  // namespace sextant
