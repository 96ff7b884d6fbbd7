// Fuzzes config.json and generation_config.json, which the input holds one behind the other with a NUL
// between.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/model/hf_config.h"
#include "common/model/rope.h"
#include "common/model/shard.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t end = text.find('\0');
  const absl::string_view generation = end == absl::string_view::npos ? "" : text.substr(end + 1);
  const auto spec = sextant::ParseHfConfig(text.substr(0, end), generation);
  if (!spec.ok()) return 0;
  (void)sextant::RopeFrequencies(*spec);
  for (int ranks = 1; ranks <= 4; ++ranks) (void)sextant::PlanShards(*spec, ranks);
  return 0;
}
