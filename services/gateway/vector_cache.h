// Directions of stored vectors, kept by their digest so that a vector travels from the registry once.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "services/gateway/vector_source.h"

namespace sextant {

// Evicts what was used longest ago when it holds more than `max_bytes`. Threads: any.
class VectorCache {
 public:
  explicit VectorCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // The directions with this digest, or nullptr.
  std::shared_ptr<const std::string> Find(const std::string& sha256);

  // Bytes kept now.
  int64_t bytes() const;

  // Keeps `directions`, unless they alone are too large.
  void Put(const std::string& sha256, std::shared_ptr<const std::string> directions);

 private:
  struct Entry {
    std::string sha256;
    std::shared_ptr<const std::string> directions;
  };

  const int64_t max_bytes_;
  mutable absl::Mutex mutex_;
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // most recently used first
  absl::flat_hash_map<std::string, std::list<Entry>::iterator> by_digest_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sextant
