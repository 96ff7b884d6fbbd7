// Implements the search for stop strings.
#include "services/shard_worker/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace sextant {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) longest_ = std::max(longest_, stop.size());
}

std::optional<std::string> StopMatcher::Append(absl::string_view bytes) {
  if (longest_ == 0) return std::nullopt;
  tail_.append(bytes.data(), bytes.size());
  const std::string* first = nullptr;
  size_t first_at = std::string::npos;
  for (const std::string& stop : stops_) {
    if (stop.empty()) continue;
    const size_t at = tail_.find(stop);
    if (at < first_at) {
      first_at = at;
      first = &stop;
    }
  }
  if (first != nullptr) return *first;
  if (tail_.size() >= longest_) tail_.erase(0, tail_.size() - (longest_ - 1));
  return std::nullopt;
}

}  // namespace sextant
