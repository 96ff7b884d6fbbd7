// Where steering vectors come from by name.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "sextant/v1/vector.pb.h"

namespace sextant {

struct StoredVector {
  v1::Vector description;
  // F32 little-endian, [layers, hidden_size].
  std::string directions;
};

// Threads: any.
class VectorSource {
 public:
  virtual ~VectorSource() = default;
  // The vector called `name` or `name@version`. The source's own errors, e.g. NOT_FOUND / VECTOR_NOT_FOUND.
  virtual absl::StatusOr<std::shared_ptr<const StoredVector>> Get(const std::string& reference) = 0;
};

}  // namespace sextant
