// Fuzzes the safetensors header parser: the first byte chooses the size of the data behind the header.
#include <cstddef>
#include <cstdint>

#include "common/model/safetensors.h"
#include "kernels/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const int64_t data_bytes = data[0];
  const auto tensors = sextant::ParseSafetensorsHeader(
      absl::string_view(reinterpret_cast<const char*>(data) + 1, size - 1), data_bytes);
  if (!tensors.ok()) return 0;
  int64_t covered = 0;
  for (const sextant::SafetensorsTensor& tensor : *tensors) {
    SEXTANT_CHECK(tensor.begin >= 0 && tensor.begin <= tensor.end && tensor.end <= data_bytes);
    covered += tensor.end - tensor.begin;
  }
  SEXTANT_CHECK_EQ(covered, data_bytes);
  return 0;
}
