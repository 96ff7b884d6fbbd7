// The steering registry itself.
#include "services/steering_registry/registry.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/status_macros.h"
#include "services/steering_registry/errors.h"
#include "services/steering_registry/vector_check.h"

namespace sextant {
namespace {

constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;
// Far below gRPC's limit of 4 MiB for a message; one description has at most some 80 KiB.
constexpr size_t kMaxPageBytes = 1 << 20;
constexpr int kMaxNamesCompared = 10'000;

// How many of `found` make a page: at most `limit`, and at most kMaxPageBytes unless the first alone is more.
size_t PageLength(const std::vector<v1::Vector>& found, size_t limit) {
  size_t bytes = 0;
  size_t count = 0;
  for (; count < std::min(found.size(), limit); ++count) {
    bytes += found[count].ByteSizeLong();
    if (count > 0 && bytes > kMaxPageBytes) break;
  }
  return count;
}

// Tokens say which listing they belong to: "n:NAME" after a name, "v:VERSION" below a version.
absl::StatusOr<std::string> NameToken(const std::string& token) {
  absl::string_view rest = token;
  if (token.empty()) return std::string();
  if (!absl::ConsumePrefix(&rest, "n:") || !CheckVectorName(rest).ok()) return PageTokenInvalid();
  return std::string(rest);
}

absl::StatusOr<int32_t> VersionToken(const std::string& token) {
  absl::string_view rest = token;
  int32_t version = std::numeric_limits<int32_t>::max();
  if (token.empty()) return version;
  if (!absl::ConsumePrefix(&rest, "v:") || !absl::SimpleAtoi(rest, &version) || version < 1) {
    return PageTokenInvalid();
  }
  return version;
}

void SetCreateTime(absl::Time now, v1::Vector& vector) {
  const int64_t nanos = absl::ToUnixNanos(now);
  vector.mutable_create_time()->set_seconds(nanos / 1'000'000'000);
  vector.mutable_create_time()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

}  // namespace

absl::StatusOr<v1::Vector> Registry::Create(v1::Vector vector, absl::string_view data) {
  SEXTANT_RETURN_IF_ERROR(CheckVectorMetadata(vector));
  SEXTANT_ASSIGN_OR_RETURN(const std::vector<float> norms, CheckDirections(vector, data));
  vector.clear_version();
  *vector.mutable_norms() = {norms.begin(), norms.end()};
  vector.set_sha256(VectorDigest(vector, data));
  SetCreateTime(clock_.Now(), vector);
  return store_.Put(vector, data);
}

absl::StatusOr<v1::Vector> Registry::Get(absl::string_view reference) {
  SEXTANT_ASSIGN_OR_RETURN(const VectorReference parsed, ParseVectorReference(reference));
  auto vector = store_.Get(parsed.name, parsed.version);
  if (!vector.ok()) return Explain(vector.status(), parsed.name, parsed.version.value_or(0));
  return vector;
}

absl::StatusOr<StoredVector> Registry::Read(absl::string_view reference) {
  SEXTANT_ASSIGN_OR_RETURN(const VectorReference parsed, ParseVectorReference(reference));
  auto stored = store_.Read(parsed.name, parsed.version);
  if (!stored.ok()) return Explain(stored.status(), parsed.name, parsed.version.value_or(0));
  return stored;
}

absl::StatusOr<v1::ListVectorsResponse> Registry::List(const v1::ListVectorsRequest& request) {
  if (request.page_size() < 0) return PageSizeInvalid();
  const int limit = request.page_size() == 0 ? kDefaultPageSize : std::min(request.page_size(), kMaxPageSize);
  std::vector<v1::Vector> found;
  // One more than asked for tells whether there is a next page.
  if (request.name().empty()) {
    SEXTANT_ASSIGN_OR_RETURN(const std::string after, NameToken(request.page_token()));
    SEXTANT_ASSIGN_OR_RETURN(found, store_.ListNewest(after, limit + 1));
  } else {
    SEXTANT_RETURN_IF_ERROR(CheckVectorName(request.name()));
    SEXTANT_ASSIGN_OR_RETURN(const int32_t before, VersionToken(request.page_token()));
    SEXTANT_ASSIGN_OR_RETURN(found, store_.ListVersions(request.name(), before, limit + 1));
  }
  v1::ListVectorsResponse response;
  const size_t length = PageLength(found, static_cast<size_t>(limit));
  if (length < found.size()) {
    found.resize(length);
    response.set_next_page_token(request.name().empty() ? absl::StrCat("n:", found.back().name())
                                                        : absl::StrCat("v:", found.back().version()));
  }
  for (v1::Vector& vector : found) *response.add_vectors() = std::move(vector);
  return response;
}

absl::StatusOr<int32_t> Registry::Delete(absl::string_view reference) {
  SEXTANT_ASSIGN_OR_RETURN(const VectorReference parsed, ParseVectorReference(reference));
  auto count = store_.Hide(parsed.name, parsed.version);
  if (!count.ok()) return Explain(count.status(), parsed.name, parsed.version.value_or(0));
  return count;
}

absl::Status Registry::Explain(const absl::Status& status, absl::string_view name, int32_t version) {
  if (!absl::IsNotFound(status)) return status;
  if (version > 0) {
    const auto newest = store_.Get(name, std::nullopt);
    if (newest.ok()) return VectorVersionNotFound(name, version, newest->version());
  }
  SEXTANT_ASSIGN_OR_RETURN(const std::vector<std::string> names, store_.Names(kMaxNamesCompared));
  return VectorNotFound(name, NearestNames(name, names));
}

}  // namespace sextant
