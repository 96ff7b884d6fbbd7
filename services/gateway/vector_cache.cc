// Directions of stored vectors, kept by their digest so that a vector travels from the registry once.
#include "services/gateway/vector_cache.h"

#include <utility>

namespace sextant {

std::shared_ptr<const std::string> VectorCache::Find(const std::string& sha256) {
  absl::MutexLock lock(&mutex_);
  const auto found = by_digest_.find(sha256);
  if (found == by_digest_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->directions;
}

int64_t VectorCache::bytes() const {
  absl::MutexLock lock(&mutex_);
  return bytes_;
}

void VectorCache::Put(const std::string& sha256, std::shared_ptr<const std::string> directions) {
  const auto size = static_cast<int64_t>(directions->size());
  absl::MutexLock lock(&mutex_);
  if (size > max_bytes_ || by_digest_.contains(sha256)) return;
  entries_.push_front({sha256, std::move(directions)});
  by_digest_[sha256] = entries_.begin();
  bytes_ += size;
  while (bytes_ > max_bytes_) {
    const Entry& oldest = entries_.back();
    bytes_ -= static_cast<int64_t>(oldest.directions->size());
    by_digest_.erase(oldest.sha256);
    entries_.pop_back();
  }
}

}  // namespace sextant
