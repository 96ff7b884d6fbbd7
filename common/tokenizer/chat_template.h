// Chat messages to tokens, for the chat formats that are recognised by the text of the model's template.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/tokenizer/tokenizer.h"

namespace sextant {

struct ChatTurn {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

// One chat format. Templates are programs; this class does not run them but knows the formats of two families
// and recognises which one a template describes. Immutable. Threads: any.
class ChatTemplate {
 public:
  enum class Family { kNone, kChatMl, kLlama3 };

  // kNone for a template that is not recognised, or empty.
  static ChatTemplate Recognise(absl::string_view source);

  Family family() const { return family_; }
  // "chatml", "llama3" or "".
  absl::string_view name() const;

  // The prompt that asks for the assistant's next turn. Markers become special tokens; the turns' own text is
  // read as plain text, so that nobody can smuggle a marker in. INVALID_ARGUMENT / CHAT_TEMPLATE_UNSUPPORTED
  // when the family is kNone or the tokenizer lacks its markers, INVALID_ARGUMENT / CHAT_ROLE_UNKNOWN,
  // CHAT_EMPTY.
  absl::StatusOr<std::vector<int32_t>> Render(const Tokenizer& tokenizer,
                                              absl::Span<const ChatTurn> turns) const;

 private:
  struct Part;

  std::vector<Part> ChatMlParts(absl::Span<const ChatTurn> turns) const;
  std::vector<Part> Llama3Parts(absl::Span<const ChatTurn> turns) const;

  Family family_ = Family::kNone;
  // ChatML: the system turn that is added when the first turn is not one; empty: none.
  std::string default_system_;
  // ChatML: earlier assistant turns lose their <think> part.
  bool drops_thinking_ = false;
  // Llama 3.1 and later: the system turn opens with dates.
  bool states_dates_ = false;
};

}  // namespace sextant
