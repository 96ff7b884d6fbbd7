// Chat messages to tokens, for the chat formats that are recognised by the text of the model's template.
#include "common/tokenizer/chat_template.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/base/error.h"
#include "kernels/status_macros.h"

namespace sextant {

// A marker (a special token's content) or plain text.
struct ChatTemplate::Part {
  bool is_marker;
  std::string text;
};

namespace {

constexpr char kImStart[] = "<|im_start|>";
constexpr char kImEnd[] = "<|im_end|>";
constexpr char kThinkBegin[] = "<think>";
constexpr char kThinkEnd[] = "</think>";
// The dates that Llama 3.1's own template falls back to; a date of today would make prompts irreproducible.
constexpr char kLlamaDates[] = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";

// The constant system turn that a ChatML template writes, e.g. '<|im_start|>system\nYou are ...<|im_end|>\n'.
std::string FindDefaultSystem(absl::string_view source) {
  const std::string opening = absl::StrCat(kImStart, "system\n");
  const std::string unescaped = absl::StrReplaceAll(source, {{"\\n", "\n"}, {"\\'", "'"}});
  const absl::string_view text = unescaped;
  for (size_t at = text.find(opening); at != absl::string_view::npos; at = text.find(opening, at + 1)) {
    const absl::string_view rest = text.substr(at + opening.size());
    const size_t end = rest.find(kImEnd);
    if (end == absl::string_view::npos || end == 0) continue;
    const absl::string_view constant = rest.substr(0, end);
    // A quote or brace in between means that the turn is put together by the program.
    const bool is_constant = constant.find('{') == absl::string_view::npos &&
                             constant.find("' +") == absl::string_view::npos &&
                             constant.find("' }}") == absl::string_view::npos;
    if (is_constant) return std::string(constant);
  }
  return "";
}

absl::string_view StripNewlines(absl::string_view text) {
  while (absl::ConsumePrefix(&text, "\n")) {
  }
  while (absl::ConsumeSuffix(&text, "\n")) {
  }
  return text;
}

// What an assistant turn thought, and what it said.
struct AssistantTurn {
  std::string thought;
  std::string said;
};

AssistantTurn SplitThinking(absl::string_view content) {
  const size_t first_end = content.find(kThinkEnd);
  if (first_end == absl::string_view::npos) return {"", std::string(content)};
  absl::string_view said = content.substr(content.rfind(kThinkEnd) + sizeof(kThinkEnd) - 1);
  while (absl::ConsumePrefix(&said, "\n")) {
  }
  absl::string_view thought = content.substr(0, first_end);
  const size_t begin = thought.rfind(kThinkBegin);
  if (begin != absl::string_view::npos) thought = thought.substr(begin + sizeof(kThinkBegin) - 1);
  return {std::string(StripNewlines(thought)), std::string(said)};
}

// The text of assistant turn `index` as templates with <think> write it: thoughts are kept only after the
// last question of the user.
std::string AssistantText(absl::Span<const ChatTurn> turns, size_t index) {
  size_t last_question = turns.size() - 1;
  for (size_t i = turns.size(); i-- > 0;) {
    if (turns[i].role == "user") {
      last_question = i;
      break;
    }
  }
  const AssistantTurn turn = SplitThinking(turns[index].content);
  const bool is_last = index + 1 == turns.size();
  if (index > last_question && (is_last || !turn.thought.empty())) {
    absl::string_view said = turn.said;
    while (absl::ConsumePrefix(&said, "\n")) {
    }
    return absl::StrCat(kThinkBegin, "\n", turn.thought, "\n", kThinkEnd, "\n\n", said);
  }
  return turn.said;
}

absl::Status Unsupported(absl::string_view why) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, "CHAT_TEMPLATE_UNSUPPORTED",
      absl::StrCat(why, "; send the finished prompt as text (with parse_special_tokens) or token ids"));
}

absl::Status CheckTurns(absl::Span<const ChatTurn> turns) {
  if (turns.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "CHAT_EMPTY",
                     "the chat has no messages; send at least one");
  }
  for (const ChatTurn& turn : turns) {
    if (turn.role != "system" && turn.role != "user" && turn.role != "assistant") {
      return MakeError(absl::StatusCode::kInvalidArgument, "CHAT_ROLE_UNKNOWN",
                       absl::StrCat("a message has the role \"", turn.role,
                                    "\"; roles are \"system\", \"user\" and \"assistant\""));
    }
  }
  return absl::OkStatus();
}

}  // namespace

ChatTemplate ChatTemplate::Recognise(absl::string_view source) {
  ChatTemplate result;
  if (absl::StrContains(source, kImStart) && absl::StrContains(source, kImEnd)) {
    result.family_ = Family::kChatMl;
    result.default_system_ = FindDefaultSystem(source);
    result.drops_thinking_ = absl::StrContains(source, kThinkEnd);
  } else if (absl::StrContains(source, "<|start_header_id|>") && absl::StrContains(source, "<|eot_id|>")) {
    result.family_ = Family::kLlama3;
    result.states_dates_ = absl::StrContains(source, "Cutting Knowledge Date");
  }
  return result;
}

absl::string_view ChatTemplate::name() const {
  switch (family_) {
    case Family::kNone:
      return "";
    case Family::kChatMl:
      return "chatml";
    case Family::kLlama3:
      return "llama3";
  }
  return "";
}

std::vector<ChatTemplate::Part> ChatTemplate::ChatMlParts(absl::Span<const ChatTurn> turns) const {
  std::vector<Part> parts;
  const auto add_turn = [&](absl::string_view role, absl::string_view content) {
    parts.push_back({true, kImStart});
    parts.push_back({false, absl::StrCat(role, "\n", content)});
    parts.push_back({true, kImEnd});
    parts.push_back({false, "\n"});
  };
  if (!default_system_.empty() && turns[0].role != "system") add_turn("system", default_system_);
  for (size_t i = 0; i < turns.size(); ++i) {
    const bool rewrites = drops_thinking_ && turns[i].role == "assistant";
    add_turn(turns[i].role, rewrites ? AssistantText(turns, i) : turns[i].content);
  }
  parts.push_back({true, kImStart});
  parts.push_back({false, "assistant\n"});
  return parts;
}

std::vector<ChatTemplate::Part> ChatTemplate::Llama3Parts(absl::Span<const ChatTurn> turns) const {
  std::vector<Part> parts = {{true, "<|begin_of_text|>"}};
  const auto add_header = [&](absl::string_view role) {
    parts.push_back({true, "<|start_header_id|>"});
    parts.push_back({false, std::string(role)});
    parts.push_back({true, "<|end_header_id|>"});
  };
  const auto add_turn = [&](absl::string_view role, absl::string_view content) {
    add_header(role);
    parts.push_back({false, absl::StrCat("\n\n", content)});
    parts.push_back({true, "<|eot_id|>"});
  };
  if (states_dates_) {
    const bool has_system = turns[0].role == "system";
    const std::string content(has_system ? absl::StripAsciiWhitespace(turns[0].content)
                                         : absl::string_view());
    add_turn("system", absl::StrCat(kLlamaDates, content));
    if (has_system) turns.remove_prefix(1);
  }
  for (const ChatTurn& turn : turns) add_turn(turn.role, absl::StripAsciiWhitespace(turn.content));
  add_header("assistant");
  parts.push_back({false, "\n\n"});
  return parts;
}

absl::StatusOr<std::vector<int32_t>> ChatTemplate::Render(const Tokenizer& tokenizer,
                                                          absl::Span<const ChatTurn> turns) const {
  SEXTANT_RETURN_IF_ERROR(CheckTurns(turns));
  if (family_ == Family::kNone)
    return Unsupported("the model's chat template is not one of ChatML and Llama 3");
  std::vector<int32_t> ids;
  for (const Part& part : family_ == Family::kChatMl ? ChatMlParts(turns) : Llama3Parts(turns)) {
    if (part.is_marker) {
      const auto id = tokenizer.AddedTokenId(part.text);
      if (!id.has_value()) return Unsupported(absl::StrCat("the tokenizer has no token ", part.text));
      ids.push_back(*id);
    } else {
      SEXTANT_ASSIGN_OR_RETURN(const auto text_ids, tokenizer.Encode(part.text, {}));
      ids.insert(ids.end(), text_ids.begin(), text_ids.end());
    }
  }
  return ids;
}

}  // namespace sextant
