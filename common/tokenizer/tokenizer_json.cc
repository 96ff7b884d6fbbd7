// Reads the tokenizer of a Hugging Face folder: tokenizer.json, tokenizer_config.json, chat_template.jinja.
#include "common/tokenizer/tokenizer_json.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/model/strict_json.h"
#include "common/model/weight_file.h"
#include "common/tokenizer/byte_alphabet.h"
#include "common/tokenizer/errors.h"
#include "common/tokenizer/pipeline_json.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxFileBytes = 256 << 20;
// Real files stay below 10. Copying and comparing values recurses once for each level.
constexpr int kMaxDepth = 32;
constexpr int64_t kMaxTokenCount = 4 << 20;
constexpr size_t kMaxTokenBytes = 64 << 10;
constexpr size_t kMaxTemplateBytes = 1 << 20;

using IdBySpelling = absl::flat_hash_map<std::string, int32_t>;

absl::StatusOr<Json> Parse(absl::string_view text, absl::string_view file) {
  const std::string what = absl::StrCat(kBrokenTokenizer, file);
  SEXTANT_ASSIGN_OR_RETURN(Json json,
                           ParseStrictJson(text, what, kTokenizerInvalid, {kMaxFileBytes, kMaxDepth}));
  if (!json.is_object()) return TokenizerInvalid(absl::StrCat(file, " is not a JSON object"));
  return json;
}

absl::StatusOr<int32_t> TokenIdOf(const Json& value) {
  if (!value.is_number_integer()) return TokenizerInvalid("a token id is not an integer");
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= static_cast<uint64_t>(kMaxTokenCount)) {
    return TokenizerInvalid(absl::StrCat("a token id is not within 0..", kMaxTokenCount - 1));
  }
  return static_cast<int32_t>(value.get<uint64_t>());
}

// Sets the bytes of `id`, which no other token may have.
absl::Status AddToken(int32_t id, absl::string_view spelled, std::vector<bool>* seen, TokenizerSpec* spec) {
  if (spelled.size() > kMaxTokenBytes) return TokenizerInvalid("a token is longer than 64 KiB");
  const size_t index = static_cast<size_t>(id);
  if (index >= spec->token_bytes.size()) {
    spec->token_bytes.resize(index + 1);
    spec->mergeable.resize(index + 1, false);
    seen->resize(index + 1, false);
  }
  if ((*seen)[index]) return TokenizerInvalid(absl::StrCat("two tokens have the id ", id));
  (*seen)[index] = true;
  // A token that is not spelled in the byte alphabet is never the result of merging bytes.
  std::optional<std::string> bytes = BytesOfSpelling(spelled);
  spec->mergeable[index] = bytes.has_value();
  spec->token_bytes[index] = bytes.has_value() ? *std::move(bytes) : std::string(spelled);
  return absl::OkStatus();
}

absl::StatusOr<IdBySpelling> ReadVocabulary(const Json& model, TokenizerSpec* spec) {
  const auto vocab = model.find("vocab");
  if (vocab == model.end() || !vocab->is_object()) return TokenizerInvalid("model.vocab is not an object");
  if (vocab->size() > static_cast<size_t>(kMaxTokenCount))
    return TokenizerInvalid("model.vocab is too large");
  IdBySpelling ids;
  ids.reserve(vocab->size());
  std::vector<bool> seen;
  for (auto entry = vocab->begin(); entry != vocab->end(); ++entry) {
    SEXTANT_ASSIGN_OR_RETURN(const int32_t id, TokenIdOf(entry.value()));
    SEXTANT_RETURN_IF_ERROR(AddToken(id, entry.key(), &seen, spec));
    ids.emplace(entry.key(), id);
  }
  return ids;
}

// A rule is "left right" or ["left", "right"].
absl::StatusOr<std::pair<std::string, std::string>> ReadRule(const Json& rule) {
  if (rule.is_string()) {
    const std::string& text = rule.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return std::make_pair(text.substr(0, space), text.substr(space + 1));
    }
  } else if (rule.is_array() && rule.size() == 2 && rule[0].is_string() && rule[1].is_string()) {
    return std::make_pair(rule[0].get<std::string>(), rule[1].get<std::string>());
  }
  return TokenizerInvalid("a merge rule is neither \"left right\" nor [\"left\", \"right\"]");
}

absl::Status ReadMerges(const Json& model, const IdBySpelling& ids, TokenizerSpec* spec) {
  const auto merges = model.find("merges");
  if (merges == model.end() || !merges->is_array()) return TokenizerInvalid("model.merges is not an array");
  if (merges->size() > static_cast<size_t>(kMaxTokenCount))
    return TokenizerInvalid("model.merges is too long");
  spec->merges.reserve(merges->size());
  for (const Json& entry : *merges) {
    SEXTANT_ASSIGN_OR_RETURN(const auto rule, ReadRule(entry));
    const auto left = ids.find(rule.first);
    const auto right = ids.find(rule.second);
    const auto result = ids.find(rule.first + rule.second);
    if (left == ids.end() || right == ids.end() || result == ids.end()) {
      return TokenizerInvalid(absl::StrCat("merge rule ", spec->merges.size(),
                                           " uses or makes a token that is not in the vocabulary"));
    }
    spec->merges.push_back({left->second, right->second, result->second});
  }
  return absl::OkStatus();
}

// Refuses what would make byte-level merging give other ids.
absl::Status CheckModel(const Json& model) {
  const auto is_set = [&](const char* name) {
    const auto value = model.find(name);
    return value != model.end() && !value->is_null() && *value != false && *value != "";
  };
  const auto type = model.find("type");
  if (type != model.end() && *type != "BPE") {
    return TokenizerUnsupported(absl::StrCat(
        "model type ", type->is_string() ? type->get<std::string>() : "?", "; only BPE is read"));
  }
  for (const char* name : {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                           "fuse_unk", "byte_fallback"}) {
    if (is_set(name)) return TokenizerUnsupported(absl::StrCat("BPE with ", name));
  }
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const Json& file, TokenizerSpec* spec) {
  const auto added = file.find("added_tokens");
  if (added == file.end() || added->is_null()) return absl::OkStatus();
  if (!added->is_array()) return TokenizerInvalid("added_tokens is not an array");
  for (const Json& entry : *added) {
    if (!entry.is_object() || !entry.contains("id") || !entry.contains("content") ||
        !entry["content"].is_string()) {
      return TokenizerInvalid("an added token has no id or no content");
    }
    AddedToken token;
    SEXTANT_ASSIGN_OR_RETURN(token.id, TokenIdOf(entry["id"]));
    token.content = entry["content"].get<std::string>();
    if (token.content.size() > kMaxTokenBytes)
      return TokenizerInvalid("an added token is longer than 64 KiB");
    const auto flag = [&](const char* name) { return entry.contains(name) && entry[name] == true; };
    token.special = flag("special");
    token.single_word = flag("single_word");
    token.strip_left = flag("lstrip");
    token.strip_right = flag("rstrip");
    token.normalized = flag("normalized");
    const size_t index = static_cast<size_t>(token.id);
    if (index >= spec->token_bytes.size()) {
      spec->token_bytes.resize(index + 1);
      spec->mergeable.resize(index + 1, false);
    }
    spec->token_bytes[index] = token.content;
    spec->added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

// The file's content, or nothing if there is no such file.
absl::StatusOr<std::optional<std::string>> ReadOptionalFile(const std::string& path) {
  auto text = ReadSmallFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return std::optional<std::string>();
  if (!text.ok()) return text.status();
  return std::optional<std::string>(*std::move(text));
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view text) {
  SEXTANT_ASSIGN_OR_RETURN(const Json file, Parse(text, "tokenizer.json"));
  const auto model = file.find("model");
  if (model == file.end() || !model->is_object()) return TokenizerInvalid("tokenizer.json has no model");
  SEXTANT_RETURN_IF_ERROR(CheckModel(*model));
  TokenizerSpec spec;
  spec.whole_pieces = model->contains("ignore_merges") && (*model)["ignore_merges"] == true;
  SEXTANT_ASSIGN_OR_RETURN(const IdBySpelling ids, ReadVocabulary(*model, &spec));
  SEXTANT_RETURN_IF_ERROR(ReadMerges(*model, ids, &spec));
  SEXTANT_RETURN_IF_ERROR(ReadAddedTokens(file, &spec));
  SEXTANT_RETURN_IF_ERROR(ReadNormalizer(file, &spec));
  SEXTANT_RETURN_IF_ERROR(ReadPreTokenizer(file, &spec));
  SEXTANT_RETURN_IF_ERROR(ReadPostProcessor(file, &spec));
  SEXTANT_RETURN_IF_ERROR(CheckDecoder(file));
  return spec;
}

absl::StatusOr<std::string> ParseChatTemplate(absl::string_view config_json) {
  SEXTANT_ASSIGN_OR_RETURN(const Json config, Parse(config_json, "tokenizer_config.json"));
  const auto entry = config.find("chat_template");
  if (entry == config.end() || entry->is_null()) return std::string();
  std::string source;
  if (entry->is_string()) {
    source = entry->get<std::string>();
  } else if (entry->is_array()) {
    for (const Json& named : *entry) {
      if (named.is_object() && named.contains("name") && named["name"] == "default" &&
          named.contains("template") && named["template"].is_string()) {
        source = named["template"].get<std::string>();
      }
    }
  }
  if (source.size() > kMaxTemplateBytes) return TokenizerInvalid("the chat template is larger than 1 MiB");
  return source;
}

absl::StatusOr<TokenizerSpec> ReadTokenizerFolder(const std::string& folder) {
  SEXTANT_ASSIGN_OR_RETURN(const auto json, ReadOptionalFile(folder + "/tokenizer.json"));
  if (!json.has_value()) return TokenizerNotFound(folder);
  SEXTANT_ASSIGN_OR_RETURN(TokenizerSpec spec, ParseTokenizerJson(*json));
  SEXTANT_ASSIGN_OR_RETURN(auto chat_template, ReadOptionalFile(folder + "/chat_template.jinja"));
  if (chat_template.has_value() && chat_template->size() <= kMaxTemplateBytes) {
    spec.chat_template = *std::move(chat_template);
    return spec;
  }
  SEXTANT_ASSIGN_OR_RETURN(const auto config, ReadOptionalFile(folder + "/tokenizer_config.json"));
  if (config.has_value()) {
    SEXTANT_ASSIGN_OR_RETURN(spec.chat_template, ParseChatTemplate(*config));
  }
  return spec;
}

}  // namespace sextant
