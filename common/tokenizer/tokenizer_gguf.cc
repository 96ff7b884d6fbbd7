// Reads the tokenizer in the metadata of a GGUF file.
#include "common/tokenizer/tokenizer_gguf.h"

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "common/model/weight_file.h"
#include "common/tokenizer/byte_alphabet.h"
#include "common/tokenizer/errors.h"
#include "common/tokenizer/pipeline_json.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

// Kinds of token in tokenizer.ggml.token_type.
constexpr int64_t kControl = 3;
constexpr int64_t kUserDefined = 4;
constexpr int64_t kUnused = 5;

constexpr size_t kMaxTemplateBytes = 1 << 20;

constexpr char kLlama3Expression[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr char kQwen2Expression[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

// What the name of a pre-tokenizer stands for: the model family's own tokenizer.json.
absl::Status ApplyPreTokenizer(const std::string& name, TokenizerSpec* spec) {
  if (name == "smollm") {
    spec->split_expressions = {kDigitExpression, kGpt2Expression};
  } else if (name == "llama-bpe") {
    spec->split_expressions = {kLlama3Expression};
    spec->whole_pieces = true;
  } else if (name == "qwen2") {
    spec->split_expressions = {kQwen2Expression};
    spec->normalize_nfc = true;
  } else {
    return TokenizerUnsupported(
        absl::StrCat("tokenizer.ggml.pre \"", name, "\"; smollm, llama-bpe and qwen2 are read"));
  }
  return absl::OkStatus();
}

absl::Status ReadTokens(const std::vector<std::string>& tokens, const std::vector<int64_t>& types,
                        TokenizerSpec* spec) {
  if (types.size() != tokens.size()) {
    return TokenizerInvalid("tokenizer.ggml.token_type and tokenizer.ggml.tokens differ in length");
  }
  for (size_t id = 0; id < tokens.size(); ++id) {
    const bool added = types[id] == kControl || types[id] == kUserDefined;
    std::optional<std::string> bytes = BytesOfSpelling(tokens[id]);
    spec->mergeable.push_back(bytes.has_value() && !added && types[id] != kUnused);
    if (types[id] == kUnused) {
      spec->token_bytes.emplace_back();
    } else {
      spec->token_bytes.push_back(bytes.has_value() && !added ? *std::move(bytes) : tokens[id]);
    }
    if (added) {
      AddedToken token;
      token.id = static_cast<int32_t>(id);
      token.content = tokens[id];
      token.special = types[id] == kControl;
      spec->added_tokens.push_back(std::move(token));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadMerges(const std::vector<std::string>& tokens, const std::vector<std::string>& rules,
                        TokenizerSpec* spec) {
  absl::flat_hash_map<absl::string_view, int32_t> ids;
  for (size_t id = 0; id < tokens.size(); ++id) ids.emplace(tokens[id], static_cast<int32_t>(id));
  for (const std::string& rule : rules) {
    const size_t space = rule.find(' ');
    if (space == std::string::npos || rule.find(' ', space + 1) != std::string::npos) {
      return TokenizerInvalid("a rule of tokenizer.ggml.merges is not \"left right\"");
    }
    const auto left = ids.find(absl::string_view(rule).substr(0, space));
    const auto right = ids.find(absl::string_view(rule).substr(space + 1));
    const auto result = ids.find(rule.substr(0, space) + rule.substr(space + 1));
    if (left == ids.end() || right == ids.end() || result == ids.end()) {
      return TokenizerInvalid(absl::StrCat("merge rule ", spec->merges.size(),
                                           " uses or makes a token that is not in the vocabulary"));
    }
    spec->merges.push_back({left->second, right->second, result->second});
  }
  return absl::OkStatus();
}

absl::Status ReadBos(const GgufHeader& header, const std::string& pre, TokenizerSpec* spec) {
  bool add_bos = pre == "llama-bpe";
  if (header.Has("tokenizer.ggml.add_bos_token")) {
    SEXTANT_ASSIGN_OR_RETURN(add_bos, header.Boolean("tokenizer.ggml.add_bos_token"));
  }
  if (!add_bos) return absl::OkStatus();
  SEXTANT_ASSIGN_OR_RETURN(const int64_t bos, header.Integer("tokenizer.ggml.bos_token_id"));
  if (bos < 0 || static_cast<size_t>(bos) >= spec->token_bytes.size()) {
    return TokenizerInvalid("tokenizer.ggml.bos_token_id is not in the vocabulary");
  }
  spec->prefix_ids = {static_cast<int32_t>(bos)};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadTokenizerOfGguf(const GgufHeader& header) {
  SEXTANT_ASSIGN_OR_RETURN(const std::string model, header.String("tokenizer.ggml.model"));
  if (model != "gpt2") {
    return TokenizerUnsupported(
        absl::StrCat("tokenizer.ggml.model \"", model, "\"; gpt2 (byte-level BPE) is read"));
  }
  SEXTANT_ASSIGN_OR_RETURN(const std::string pre, header.String("tokenizer.ggml.pre"));
  SEXTANT_ASSIGN_OR_RETURN(const auto* tokens, header.Strings("tokenizer.ggml.tokens"));
  SEXTANT_ASSIGN_OR_RETURN(const auto* types, header.Integers("tokenizer.ggml.token_type"));
  SEXTANT_ASSIGN_OR_RETURN(const auto* merges, header.Strings("tokenizer.ggml.merges"));
  TokenizerSpec spec;
  SEXTANT_RETURN_IF_ERROR(ApplyPreTokenizer(pre, &spec));
  SEXTANT_RETURN_IF_ERROR(ReadTokens(*tokens, *types, &spec));
  SEXTANT_RETURN_IF_ERROR(ReadMerges(*tokens, *merges, &spec));
  SEXTANT_RETURN_IF_ERROR(ReadBos(header, pre, &spec));
  if (header.Has("tokenizer.chat_template")) {
    SEXTANT_ASSIGN_OR_RETURN(spec.chat_template, header.String("tokenizer.chat_template"));
    if (spec.chat_template.size() > kMaxTemplateBytes) {
      return TokenizerInvalid("the chat template is larger than 1 MiB");
    }
  }
  return spec;
}

absl::StatusOr<TokenizerSpec> ReadTokenizerOfGgufFile(const std::string& path) {
  SEXTANT_ASSIGN_OR_RETURN(const WeightFile file, WeightFile::Open(path));
  SEXTANT_ASSIGN_OR_RETURN(const GgufHeader header, GgufHeader::Read(file));
  return ReadTokenizerOfGguf(header);
}

}  // namespace sextant
