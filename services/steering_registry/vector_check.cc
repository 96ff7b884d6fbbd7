// What a vector must be before it is stored.
#include "services/steering_registry/vector_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "common/activation/site.h"
#include "common/base/sha256.h"
#include "kernels/status_macros.h"
#include "services/steering_registry/errors.h"

namespace sextant {
namespace {

constexpr size_t kMaxNameBytes = 63;
constexpr int kMaxHiddenSize = 1 << 20;
constexpr int kMaxLayers = 4096;
constexpr size_t kMaxModelBytes = 256;
constexpr size_t kMaxDescriptionBytes = 4096;
constexpr int kMaxLabels = 64;
constexpr size_t kMaxLabelKeyBytes = 128;
constexpr size_t kMaxLabelValueBytes = 1024;

bool IsNameCharacter(char c) {
  return absl::ascii_islower(static_cast<unsigned char>(c)) ||
         absl::ascii_isdigit(static_cast<unsigned char>(c)) || c == '_' || c == '-';
}

bool IsHexDigest(absl::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
         });
}

absl::Status CheckLayers(const v1::Vector& vector) {
  if (vector.model_layer_count() < 1 || vector.model_layer_count() > kMaxLayers) {
    return VectorShape(absl::StrCat("model_layer_count must be 1 to ", kMaxLayers));
  }
  if (vector.layers().empty()) return VectorShape("layers is empty; name the layer of each direction");
  int previous = -1;
  for (const int layer : vector.layers()) {
    if (layer <= previous) return VectorShape("layers must be ascending, without repeats, from 0");
    if (layer >= vector.model_layer_count()) {
      return VectorShape(absl::StrCat("layer ", layer, " is beyond the model's ", vector.model_layer_count(),
                                      " layers (they count from 0)"));
    }
    previous = layer;
  }
  return absl::OkStatus();
}

// The number of edits (insert, delete, replace) that turn `a` into `b`.
int EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<int> row(b.size() + 1);  // distances of a's prefix to each prefix of b
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = std::exchange(row[0], static_cast<int>(i));
    for (size_t j = 1; j <= b.size(); ++j) {
      const int replace = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replace, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

absl::Status CheckVectorName(absl::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes || name[0] == '_' || name[0] == '-' ||
      !std::all_of(name.begin(), name.end(), IsNameCharacter)) {
    return VectorNameInvalid(name);
  }
  return absl::OkStatus();
}

absl::StatusOr<VectorReference> ParseVectorReference(absl::string_view reference) {
  const size_t at = reference.find('@');
  const absl::string_view name = reference.substr(0, at);
  if (!CheckVectorName(name).ok()) return VectorReferenceInvalid(reference);
  if (at == absl::string_view::npos) return VectorReference{std::string(name), std::nullopt};
  const absl::string_view digits = reference.substr(at + 1);
  int32_t version = 0;
  const bool decimal = !digits.empty() && digits[0] != '0' &&
                       std::all_of(digits.begin(), digits.end(),
                                   [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); });
  if (!decimal || !absl::SimpleAtoi(digits, &version)) return VectorReferenceInvalid(reference);
  return VectorReference{std::string(name), version};
}

absl::Status CheckVectorMetadata(const v1::Vector& vector) {
  SEXTANT_RETURN_IF_ERROR(CheckVectorName(vector.name()));
  if (!v1::Site_IsValid(vector.site()) || vector.site() == v1::SITE_UNSPECIFIED) {
    return VectorShape("site is required, e.g. SITE_RESID_PRE");
  }
  SEXTANT_RETURN_IF_ERROR(CheckLayers(vector));
  if (vector.hidden_size() < 1 || vector.hidden_size() > kMaxHiddenSize) {
    return VectorShape(absl::StrCat("hidden_size must be 1 to ", kMaxHiddenSize));
  }
  if (VectorBytes(vector) > kMaxVectorBytes) {
    return VectorTooBig(absl::StrCat(vector.layers_size(), " layers of ", vector.hidden_size(),
                                     " numbers are ", VectorBytes(vector), " bytes; at most ",
                                     kMaxVectorBytes, " are stored"));
  }
  if (vector.model().size() > kMaxModelBytes) return VectorMetadataInvalid("model is longer than 256 bytes");
  if (!vector.model_sha256().empty() && !IsHexDigest(vector.model_sha256())) {
    return VectorMetadataInvalid("model_sha256 must be empty or 64 lower-case hex digits");
  }
  if (vector.description().size() > kMaxDescriptionBytes) {
    return VectorMetadataInvalid("description is longer than 4096 bytes");
  }
  if (vector.labels_size() > kMaxLabels) return VectorMetadataInvalid("there are more than 64 labels");
  for (const auto& [key, value] : vector.labels()) {
    if (key.empty() || key.size() > kMaxLabelKeyBytes || value.size() > kMaxLabelValueBytes) {
      return VectorMetadataInvalid("a label's key must be 1 to 128 bytes and its value at most 1024");
    }
  }
  return absl::OkStatus();
}

int64_t VectorBytes(const v1::Vector& vector) {
  return int64_t{vector.layers_size()} * vector.hidden_size() * static_cast<int64_t>(sizeof(float));
}

absl::StatusOr<std::vector<float>> CheckDirections(const v1::Vector& vector, absl::string_view data) {
  if (static_cast<int64_t>(data.size()) != VectorBytes(vector)) {
    return VectorShape(absl::StrCat("data has ", data.size(), " bytes; ", vector.layers_size(), " layers of ",
                                    vector.hidden_size(), " F32 numbers are ", VectorBytes(vector)));
  }
  std::vector<float> norms;
  bool all_zero = true;
  for (int row = 0; row < vector.layers_size(); ++row) {
    double sum = 0;
    for (int col = 0; col < vector.hidden_size(); ++col) {
      float value;
      std::memcpy(&value, data.data() + (int64_t{row} * vector.hidden_size() + col) * sizeof value,
                  sizeof value);
      if (!std::isfinite(value)) {
        return VectorNotFinite(absl::StrCat("element ", col, " of the direction of layer ",
                                            vector.layers(row), " is ",
                                            std::isnan(value) ? "NaN" : "infinite"));
      }
      sum += double{value} * value;
    }
    const float norm = static_cast<float>(std::sqrt(sum));
    if (!std::isfinite(norm)) {
      return VectorNotFinite(
          absl::StrCat("the norm of the direction of layer ", vector.layers(row), " overflows"));
    }
    all_zero = all_zero && sum == 0;
    norms.push_back(norm);
  }
  if (all_zero) return VectorZero();
  return norms;
}

std::string VectorDigest(const v1::Vector& vector, absl::string_view data) {
  Sha256 hash;
  hash.Update(absl::StrCat("sextant vector 1\nsite ", SiteName(vector.site()), "\nhidden_size ",
                           vector.hidden_size(), "\nlayers ", absl::StrJoin(vector.layers(), ","), "\n"));
  hash.Update(data);
  return absl::BytesToHexString(hash.Finish());
}

std::vector<std::string> NearestNames(absl::string_view name, const std::vector<std::string>& known) {
  const int most = std::max<int>(2, static_cast<int>(name.size() / 3));
  std::vector<std::pair<int, std::string>> near;
  for (const std::string& other : known) {
    const int distance = EditDistance(name, other);
    if (distance <= most) near.emplace_back(distance, other);
  }
  std::sort(near.begin(), near.end());
  std::vector<std::string> names;
  for (size_t i = 0; i < near.size() && i < 3; ++i) names.push_back(near[i].second);
  return names;
}

}  // namespace sextant
