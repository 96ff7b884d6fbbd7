// Request ids in call metadata.
#include "common/rpc/request_id.h"

#include <algorithm>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace sextant {
namespace {

constexpr size_t kMaxIdBytes = 128;

bool IsIdCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
}

}  // namespace

std::string NewRequestId() {
  std::random_device device;
  return absl::StrCat(absl::Hex(device(), absl::kZeroPad8), absl::Hex(device(), absl::kZeroPad8));
}

std::string RequestIdOf(const grpc::ServerContextBase& context) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(kRequestIdKey);
  if (found == metadata.end()) return NewRequestId();
  const std::string id(found->second.data(), found->second.size());
  // It is written to logs: nothing that could forge a line.
  if (id.empty() || id.size() > kMaxIdBytes || !std::all_of(id.begin(), id.end(), IsIdCharacter)) {
    return NewRequestId();
  }
  return id;
}

void SetRequestId(grpc::ClientContext& context, absl::string_view id) {
  context.AddMetadata(kRequestIdKey, std::string(id));
}

}  // namespace sextant
