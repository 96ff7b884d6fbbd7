// Reads the steps around the model in a tokenizer.json: normalizer, pre-tokenizer, post-processor, decoder.
#include "common/tokenizer/pipeline_json.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "common/tokenizer/errors.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxStepCount = 16;

std::string TypeOf(const Json& step) {
  const auto type = step.is_object() ? step.find("type") : step.end();
  return step.is_object() && type != step.end() && type->is_string() ? type->get<std::string>() : "";
}

bool Flag(const Json& step, const char* name, bool otherwise) {
  const auto value = step.find(name);
  return value == step.end() ? otherwise : *value == true;
}

// The steps of file[name]: none for null, the members of a Sequence (under `list`), or the one step itself.
absl::StatusOr<std::vector<const Json*>> Steps(const Json& file, const char* name, const char* list) {
  std::vector<const Json*> steps;
  const auto part = file.find(name);
  if (part == file.end() || part->is_null()) return steps;
  if (TypeOf(*part).empty()) return TokenizerInvalid(absl::StrCat(name, " has no type"));
  if (TypeOf(*part) != "Sequence") return std::vector<const Json*>{&*part};
  const auto members = part->find(list);
  if (members == part->end() || !members->is_array() || members->size() > kMaxStepCount) {
    return TokenizerInvalid(
        absl::StrCat("the sequence of ", name, " is not a list of at most ", kMaxStepCount));
  }
  for (const Json& member : *members) steps.push_back(&member);
  return steps;
}

std::string EscapedForExpression(absl::string_view literal) {
  std::string out;
  for (const char c : literal) {
    if (static_cast<unsigned char>(c) < 0x80 && !absl::ascii_isalnum(static_cast<unsigned char>(c))) {
      out.push_back('\\');
    }
    out.push_back(c);
  }
  return out;
}

absl::Status ReadSplit(const Json& step, TokenizerSpec* spec) {
  const auto pattern = step.find("pattern");
  if (pattern == step.end() || !pattern->is_object()) return TokenizerInvalid("a Split step has no pattern");
  const auto behavior = step.find("behavior");
  if (behavior == step.end() || *behavior != "Isolated" || Flag(step, "invert", false)) {
    return TokenizerUnsupported("a Split step that is not Isolated, or inverted");
  }
  if (pattern->contains("Regex") && (*pattern)["Regex"].is_string()) {
    spec->split_expressions.push_back((*pattern)["Regex"].get<std::string>());
    return absl::OkStatus();
  }
  if (pattern->contains("String") && (*pattern)["String"].is_string()) {
    spec->split_expressions.push_back(EscapedForExpression((*pattern)["String"].get<std::string>()));
    return absl::OkStatus();
  }
  return TokenizerInvalid("the pattern of a Split step is neither Regex nor String");
}

absl::StatusOr<std::vector<int32_t>> IdsOfSpecialToken(const Json& processor, const Json& piece) {
  const auto table = processor.find("special_tokens");
  const auto name = piece.find("id");
  if (table == processor.end() || !table->is_object() || name == piece.end() || !name->is_string()) {
    return TokenizerInvalid("a TemplateProcessing step has no special_tokens");
  }
  const auto entry = table->find(name->get<std::string>());
  if (entry == table->end() || !entry->is_object() || !entry->contains("ids") ||
      !(*entry)["ids"].is_array()) {
    return TokenizerInvalid("a TemplateProcessing step names a special token it does not define");
  }
  std::vector<int32_t> ids;
  for (const Json& id : (*entry)["ids"]) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX || ids.size() == kMaxStepCount) {
      return TokenizerInvalid("a TemplateProcessing step has a bad token id");
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

absl::Status ReadTemplate(const Json& processor, TokenizerSpec* spec) {
  const auto single = processor.find("single");
  if (single == processor.end() || !single->is_array() || single->size() > kMaxStepCount) {
    return TokenizerInvalid("a TemplateProcessing step has no list `single`");
  }
  bool after_text = false;
  for (const Json& piece : *single) {
    if (piece.is_object() && piece.contains("Sequence")) {
      if (after_text) return TokenizerUnsupported("a template that repeats the text");
      after_text = true;
    } else if (piece.is_object() && piece.contains("SpecialToken") && piece["SpecialToken"].is_object()) {
      SEXTANT_ASSIGN_OR_RETURN(const auto ids, IdsOfSpecialToken(processor, piece["SpecialToken"]));
      std::vector<int32_t>& around = after_text ? spec->suffix_ids : spec->prefix_ids;
      around.insert(around.end(), ids.begin(), ids.end());
    } else {
      return TokenizerInvalid("a TemplateProcessing step has a piece that is neither text nor special token");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadNormalizer(const Json& file, TokenizerSpec* spec) {
  SEXTANT_ASSIGN_OR_RETURN(const auto steps, Steps(file, "normalizer", "normalizers"));
  for (const Json* step : steps) {
    if (TypeOf(*step) != "NFC") return TokenizerUnsupported(absl::StrCat("normalizer ", TypeOf(*step)));
    spec->normalize_nfc = true;
  }
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const Json& file, TokenizerSpec* spec) {
  SEXTANT_ASSIGN_OR_RETURN(const auto steps, Steps(file, "pre_tokenizer", "pretokenizers"));
  bool byte_level = false;
  for (const Json* step : steps) {
    const std::string type = TypeOf(*step);
    if (byte_level) return TokenizerUnsupported("a pre-tokenizer with steps after ByteLevel");
    if (type == "Split") {
      SEXTANT_RETURN_IF_ERROR(ReadSplit(*step, spec));
    } else if (type == "Digits") {
      spec->split_expressions.push_back(Flag(*step, "individual_digits", false) ? kDigitExpression
                                                                                : "\\p{N}+");
    } else if (type == "ByteLevel") {
      byte_level = true;
      if (Flag(*step, "add_prefix_space", true))
        return TokenizerUnsupported("ByteLevel with add_prefix_space");
      if (Flag(*step, "use_regex", true)) spec->split_expressions.push_back(kGpt2Expression);
    } else {
      return TokenizerUnsupported(absl::StrCat("pre-tokenizer step ", type));
    }
  }
  if (!byte_level) return TokenizerUnsupported("a pre-tokenizer without ByteLevel");
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const Json& file, TokenizerSpec* spec) {
  SEXTANT_ASSIGN_OR_RETURN(const auto steps, Steps(file, "post_processor", "processors"));
  for (const Json* step : steps) {
    const std::string type = TypeOf(*step);
    if (type == "TemplateProcessing") {
      SEXTANT_RETURN_IF_ERROR(ReadTemplate(*step, spec));
    } else if (type != "ByteLevel") {
      return TokenizerUnsupported(absl::StrCat("post-processor ", type));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckDecoder(const Json& file) {
  SEXTANT_ASSIGN_OR_RETURN(const auto steps, Steps(file, "decoder", "decoders"));
  for (const Json* step : steps) {
    if (TypeOf(*step) != "ByteLevel") return TokenizerUnsupported(absl::StrCat("decoder ", TypeOf(*step)));
  }
  return absl::OkStatus();
}

}  // namespace sextant
