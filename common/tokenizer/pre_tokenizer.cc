// Splits text into the pieces that byte-pair merging never crosses, by regular expressions.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "common/tokenizer/pre_tokenizer.h"

#include <pcre2.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/tokenizer/errors.h"
#include "common/tokenizer/utf8.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr size_t kMaxExpressionBytes = 4096;
constexpr uint32_t kMatchLimit = 20'000'000;
constexpr uint32_t kDepthLimit = 10'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;
constexpr size_t kJitStackStart = 32 * 1024;
constexpr size_t kJitStackMax = 4 * 1024 * 1024;

// White_Space of Unicode, as members of a character class. PCRE2's own \s takes U+180E as well.
constexpr char kSpaceMembers[] =
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"
    "\\x{202f}\\x{205f}\\x{3000}";

// Replaces \s and \S (outside classes) by explicit classes.
std::string WithUnicodeSpaces(absl::string_view expression) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '\\' && i + 1 < expression.size()) {
      const char escaped = expression[++i];
      if (escaped == 's') {
        absl::StrAppend(&out, in_class ? "" : "[", kSpaceMembers, in_class ? "" : "]");
      } else if (escaped == 'S' && !in_class) {
        absl::StrAppend(&out, "[^", kSpaceMembers, "]");
      } else {
        out.push_back('\\');
        out.push_back(escaped);
      }
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out.push_back(c);
  }
  return out;
}

template <auto Free>
struct FreeWith {
  template <typename T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using MatchData = std::unique_ptr<pcre2_match_data, FreeWith<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, FreeWith<pcre2_match_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, FreeWith<pcre2_jit_stack_free>>;

// Appends the matches of `code` in `piece` and the gaps between them.
absl::Status SplitPiece(const pcre2_code& code, absl::string_view piece, pcre2_match_data* match,
                        pcre2_match_context* context, std::vector<absl::string_view>* out) {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(piece.data());
  size_t gap = 0;     // start of what no match has taken yet
  size_t search = 0;  // where to look for the next match
  while (search < piece.size()) {
    const int found = pcre2_match(&code, subject, piece.size(), search, PCRE2_NO_UTF_CHECK, match, context);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      return MakeError(absl::StatusCode::kInvalidArgument, "TEXT_TOO_COMPLEX",
                       absl::StrCat("the tokenizer's expression gave up on this text (PCRE2 error ", found,
                                    "); shorten runs of one kind of character, or send token ids"));
    }
    const size_t* range = pcre2_get_ovector_pointer(match);
    const size_t begin = range[0], end = range[1];
    // An empty match takes nothing; a range that runs backwards would be the library's fault, not the text's.
    if (end <= begin || begin < search) {
      search = std::max(search, end);
      if (search < piece.size()) search += FrontCharacterLength(piece.substr(search));
      continue;
    }
    if (begin > gap) out->push_back(piece.substr(gap, begin - gap));
    out->push_back(piece.substr(begin, end - begin));
    gap = search = end;
  }
  if (gap < piece.size()) out->push_back(piece.substr(gap));
  return absl::OkStatus();
}

}  // namespace

struct PreTokenizer::Expression {
  std::unique_ptr<pcre2_code, FreeWith<pcre2_code_free>> code;
};

PreTokenizer::PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

absl::StatusOr<PreTokenizer> PreTokenizer::Create(const std::vector<std::string>& expressions) {
  PreTokenizer result;
  for (const std::string& source : expressions) {
    if (source.size() > kMaxExpressionBytes) {
      return TokenizerInvalid(absl::StrCat("a pre-tokenizer expression has ", source.size(),
                                           " bytes; at most ", kMaxExpressionBytes, " are accepted"));
    }
    const std::string pattern = WithUnicodeSpaces(source);
    int error = 0;
    size_t offset = 0;
    auto compiled = std::make_unique<Expression>();
    compiled->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                                       nullptr));
    if (compiled->code == nullptr) {
      PCRE2_UCHAR text[256] = {};
      pcre2_get_error_message(error, text, sizeof(text));
      return TokenizerInvalid(
          absl::StrCat("a pre-tokenizer expression does not compile: ", reinterpret_cast<const char*>(text)));
    }
    // Where the machine forbids writable code pages, matching goes on interpreted.
    pcre2_jit_compile(compiled->code.get(), PCRE2_JIT_COMPLETE);
    result.expressions_.push_back(std::move(compiled));
  }
  return result;
}

absl::Status PreTokenizer::Split(absl::string_view text, std::vector<absl::string_view>* pieces) const {
  if (text.empty()) return absl::OkStatus();
  MatchData match(pcre2_match_data_create(1, nullptr));
  MatchContext context(pcre2_match_context_create(nullptr));
  JitStack stack(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr));
  SEXTANT_CHECK(match != nullptr && context != nullptr && stack != nullptr);
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_depth_limit(context.get(), kDepthLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  pcre2_jit_stack_assign(context.get(), nullptr, stack.get());

  std::vector<absl::string_view> current = {text};
  std::vector<absl::string_view> next;
  for (const auto& expression : expressions_) {
    next.clear();
    for (const absl::string_view piece : current) {
      SEXTANT_RETURN_IF_ERROR(SplitPiece(*expression->code, piece, match.get(), context.get(), &next));
    }
    std::swap(current, next);
  }
  pieces->insert(pieces->end(), current.begin(), current.end());
  return absl::OkStatus();
}

}  // namespace sextant
