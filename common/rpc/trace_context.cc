// The W3C trace context's `traceparent`.
#include "common/rpc/trace_context.h"

#include <algorithm>
#include <array>
#include <random>

#include "absl/strings/str_cat.h"

namespace sextant {
namespace {

constexpr size_t kTraceIdDigits = 32;
constexpr size_t kSpanIdDigits = 16;
constexpr size_t kBytes = 2 + 1 + kTraceIdDigits + 1 + kSpanIdDigits + 1 + 2;

bool IsHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsZero(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c == '0'; });
}

std::string RandomId(size_t digits) {
  std::random_device device;
  std::string id;
  while (id.size() < digits) absl::StrAppend(&id, absl::Hex(device(), absl::kZeroPad8));
  // Zeros only would mean that there is none.
  if (IsZero(id)) id.back() = '1';
  return id;
}

}  // namespace

std::string TraceContext::ToString() const { return absl::StrCat("00-", trace_id, "-", span_id, "-", flags); }

std::optional<TraceContext> ParseTraceparent(absl::string_view text) {
  if (text.size() < kBytes) return std::nullopt;
  const absl::string_view version = text.substr(0, 2);
  if (!IsHex(version) || version == "ff") return std::nullopt;
  const bool longer = text.size() > kBytes;
  if (longer && (version == "00" || text[kBytes] != '-')) return std::nullopt;
  const std::array<absl::string_view, 3> fields = {text.substr(3, kTraceIdDigits),
                                                   text.substr(4 + kTraceIdDigits, kSpanIdDigits),
                                                   text.substr(5 + kTraceIdDigits + kSpanIdDigits, 2)};
  for (const absl::string_view field : fields) {
    if (field.data()[-1] != '-' || !IsHex(field)) return std::nullopt;
  }
  if (IsZero(fields[0]) || IsZero(fields[1])) return std::nullopt;
  return TraceContext{std::string(fields[0]), std::string(fields[1]), std::string(fields[2])};
}

TraceContext NewTrace() { return {RandomId(kTraceIdDigits), RandomId(kSpanIdDigits), "00"}; }

TraceContext NewSpan(const TraceContext& parent) {
  return {parent.trace_id, RandomId(kSpanIdDigits), parent.flags};
}

}  // namespace sextant
