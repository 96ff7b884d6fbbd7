// Reads JSON that strangers wrote: depth, size and duplicate keys are checked, and nothing throws.
#include "common/model/strict_json.h"

#include <string>
#include <unordered_set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace sextant {
namespace {

using nlohmann::json;

// Walks the document without building it and stops at the first fault.
class Checker final : public nlohmann::json_sax<json> {
 public:
  explicit Checker(int max_depth) : max_depth_(max_depth) {}

  const std::string& fault() const { return fault_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return Enter(); }
  bool start_array(std::size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    fault_ = absl::StrCat("gives the key \"", name.substr(0, 80), "\" twice");
    return false;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fault_ = absl::StrCat("is not JSON (at byte ", position, ")");
    return false;
  }

 private:
  bool Enter() {
    if (static_cast<int>(keys_.size()) >= max_depth_) {
      fault_ = absl::StrCat("is nested deeper than ", max_depth_, " levels");
      return false;
    }
    keys_.emplace_back();
    return true;
  }
  bool Leave() {
    keys_.pop_back();
    return true;
  }

  const int max_depth_;
  std::vector<std::unordered_set<std::string>> keys_;  // one set per open object or array
  std::string fault_;
};

}  // namespace

absl::StatusOr<json> ParseStrictJson(absl::string_view text, absl::string_view what, absl::string_view reason,
                                     const StrictJsonLimits& limits) {
  const auto fail = [&](absl::string_view fault) {
    return MakeError(absl::StatusCode::kInvalidArgument, reason, absl::StrCat(what, " ", fault));
  };
  if (static_cast<int64_t>(text.size()) > limits.max_bytes) {
    return fail(absl::StrCat("has ", text.size(), " bytes; at most ", limits.max_bytes, " are read"));
  }
  Checker checker(limits.max_depth);
  if (!json::sax_parse(text.begin(), text.end(), &checker)) {
    return fail(checker.fault().empty() ? "is not JSON" : checker.fault());
  }
  json document = json::parse(text.begin(), text.end(), /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) return fail("is not JSON");
  return document;
}

}  // namespace sextant
