// Text to token ids and back, for byte-level BPE models.
#include "common/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/tokenizer/errors.h"
#include "common/tokenizer/normalizer.h"
#include "common/tokenizer/tokenizer_gguf.h"
#include "common/tokenizer/tokenizer_json.h"
#include "common/tokenizer/utf8.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

// The added tokens that are matched in the normalized text, or those that are not.
std::vector<AddedToken> Select(const TokenizerSpec& spec, bool normalized) {
  std::vector<AddedToken> selected;
  for (AddedToken token : spec.added_tokens) {
    if (token.normalized != normalized) continue;
    if (normalized && spec.normalize_nfc) token.content = NormalizeNfc(token.content);
    selected.push_back(std::move(token));
  }
  return selected;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromModel(const std::string& path) {
  SEXTANT_ASSIGN_OR_RETURN(TokenizerSpec spec, absl::EndsWithIgnoreCase(path, ".gguf")
                                                   ? ReadTokenizerOfGgufFile(path)
                                                   : ReadTokenizerFolder(path));
  return Create(std::move(spec));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(TokenizerSpec spec) {
  const auto in_range = [&](int32_t id) {
    return id >= 0 && static_cast<size_t>(id) < spec.token_bytes.size();
  };
  for (const std::vector<int32_t>* ids : {&spec.prefix_ids, &spec.suffix_ids}) {
    if (!std::all_of(ids->begin(), ids->end(), in_range)) {
      return TokenizerInvalid("it adds a token (e.g. BOS) that its vocabulary does not have");
    }
  }
  std::vector<std::string> mergeable_bytes = spec.token_bytes;
  spec.mergeable.resize(spec.token_bytes.size(), false);
  for (size_t id = 0; id < mergeable_bytes.size(); ++id) {
    if (!spec.mergeable[id]) mergeable_bytes[id].clear();
  }
  for (const AddedToken& token : spec.added_tokens) {
    if (!in_range(token.id) || !IsValidUtf8(token.content)) {
      return TokenizerInvalid(absl::StrCat("added token ", token.id, " is out of range or not UTF-8"));
    }
  }
  SEXTANT_ASSIGN_OR_RETURN(Bpe bpe, Bpe::Create(mergeable_bytes, spec.merges, spec.whole_pieces));
  SEXTANT_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::Create(spec.split_expressions));
  spec.merges.clear();
  spec.merges.shrink_to_fit();
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(spec), std::move(bpe), std::move(pre_tokenizer)));
}

Tokenizer::Tokenizer(TokenizerSpec spec, Bpe bpe, PreTokenizer pre_tokenizer)
    : spec_(std::move(spec)),
      bpe_(std::move(bpe)),
      pre_tokenizer_(std::move(pre_tokenizer)),
      as_given_(Select(spec_, false)),
      normalized_(Select(spec_, true)),
      special_(spec_.token_bytes.size(), false) {
  for (const AddedToken& token : spec_.added_tokens) {
    added_ids_.emplace(token.content, token.id);
    if (token.special) special_[static_cast<size_t>(token.id)] = true;
  }
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text, EncodeOptions options) const {
  if (!IsValidUtf8(text)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "TEXT_NOT_UTF8",
                     "the text is not valid UTF-8; encode it as UTF-8, or send token ids");
  }
  std::vector<int32_t> ids;
  if (options.add_special) ids = spec_.prefix_ids;
  std::vector<TextSegment> segments;
  as_given_.Split(text, options.parse_special, &segments);
  for (const TextSegment& segment : segments) {
    if (segment.id.has_value()) {
      ids.push_back(*segment.id);
    } else {
      SEXTANT_RETURN_IF_ERROR(EncodePlain(segment.text, options.parse_special, &ids));
    }
  }
  if (options.add_special) ids.insert(ids.end(), spec_.suffix_ids.begin(), spec_.suffix_ids.end());
  return ids;
}

absl::Status Tokenizer::EncodePlain(absl::string_view text, bool parse_special,
                                    std::vector<int32_t>* ids) const {
  const std::string normalized = spec_.normalize_nfc ? NormalizeNfc(text) : std::string(text);
  std::vector<TextSegment> segments;
  normalized_.Split(normalized, parse_special, &segments);
  std::vector<absl::string_view> pieces;
  for (const TextSegment& segment : segments) {
    if (segment.id.has_value()) {
      ids->push_back(*segment.id);
      continue;
    }
    pieces.clear();
    SEXTANT_RETURN_IF_ERROR(pre_tokenizer_.Split(segment.text, &pieces));
    for (const absl::string_view piece : pieces) bpe_.Encode(piece, ids);
  }
  return absl::OkStatus();
}

absl::string_view Tokenizer::TokenBytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return spec_.token_bytes[static_cast<size_t>(id)];
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return id >= 0 && id < vocab_size() && special_[static_cast<size_t>(id)];
}

std::optional<int32_t> Tokenizer::AddedTokenId(absl::string_view content) const {
  const auto found = added_ids_.find(content);
  if (found == added_ids_.end()) return std::nullopt;
  return found->second;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (skip_special && IsSpecial(id)) continue;
    bytes.append(TokenBytes(id).data(), TokenBytes(id).size());
  }
  std::string text;
  AppendLossyUtf8(bytes, /*final=*/true, &text);
  return text;
}

}  // namespace sextant
