// Feeds bytes as tokenizer.json, and text to what was read from them.
#include <cstddef>
#include <cstdint>

#include "common/tokenizer/chat_template.h"
#include "common/tokenizer/tokenizer.h"
#include "common/tokenizer/tokenizer_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  sextant::ChatTemplate::Recognise(text);
  auto spec = sextant::ParseTokenizerJson(text);
  if (!spec.ok()) return 0;
  const auto tokenizer = sextant::Tokenizer::Create(*std::move(spec));
  if (!tokenizer.ok()) return 0;
  const auto ids =
      (*tokenizer)
          ->Encode("Hello, world 123 \n\n <s> caf\xC3\xA9", {.add_special = true, .parse_special = true});
  if (ids.ok()) (*tokenizer)->Decode(*ids, /*skip_special=*/true);
  return 0;
}
