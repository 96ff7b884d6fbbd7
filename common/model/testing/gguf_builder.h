// Builds GGUF files for tests, right by default and wrong wherever a test says so.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sextant {

// Little-endian bytes, appended one value after another.
class ByteWriter {
 public:
  template <typename T>
  ByteWriter& Number(T value) {
    const size_t size = bytes_.size();
    bytes_.resize(size + sizeof value);
    std::memcpy(bytes_.data() + size, &value, sizeof value);
    return *this;
  }
  ByteWriter& Raw(const std::string& bytes) {
    bytes_ += bytes;
    return *this;
  }
  // A GGUF string: length, then bytes.
  ByteWriter& Text(const std::string& text) { return Number<uint64_t>(text.size()).Raw(text); }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

struct GgufBuilder {
  struct Tensor {
    std::string name;
    std::vector<int64_t> dims;  // fastest first
    uint32_t type = 0;
    std::string data;
    std::optional<uint64_t> offset;  // unset: where it belongs
  };

  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<int64_t> tensor_count;  // unset: the true one
  std::optional<int64_t> key_count;
  std::vector<std::string> pairs;  // whole encoded key-value pairs
  std::vector<Tensor> tensors;
  int64_t alignment = 32;  // of the layout; not written as a key

  // Appends a pair of any type; `value` is its encoding.
  GgufBuilder& Pair(const std::string& key, uint32_t type, const std::string& value) {
    pairs.push_back(ByteWriter().Text(key).Number(type).Raw(value).bytes());
    return *this;
  }
  GgufBuilder& U32(const std::string& key, uint32_t value) {
    return Pair(key, 4, ByteWriter().Number(value).bytes());
  }
  GgufBuilder& F32(const std::string& key, float value) {
    return Pair(key, 6, ByteWriter().Number(value).bytes());
  }
  GgufBuilder& String(const std::string& key, const std::string& value) {
    return Pair(key, 8, ByteWriter().Text(value).bytes());
  }
  GgufBuilder& Strings(const std::string& key, const std::vector<std::string>& values) {
    ByteWriter array;
    array.Number<uint32_t>(8).Number<uint64_t>(values.size());
    for (const std::string& value : values) array.Text(value);
    return Pair(key, 9, array.bytes());
  }
  GgufBuilder& F32Tensor(const std::string& name, std::vector<int64_t> dims,
                         const std::vector<float>& values) {
    std::string data(values.size() * 4, '\0');
    std::memcpy(data.data(), values.data(), data.size());
    tensors.push_back({name, std::move(dims), 0, std::move(data), std::nullopt});
    return *this;
  }

  // Everything up to the tensor data, padded.
  std::string Header() const {
    ByteWriter out;
    out.Raw(magic).Number(version);
    out.Number<int64_t>(tensor_count.value_or(static_cast<int64_t>(tensors.size())));
    out.Number<int64_t>(key_count.value_or(static_cast<int64_t>(pairs.size())));
    for (const std::string& pair : pairs) out.Raw(pair);
    uint64_t offset = 0;
    for (const Tensor& tensor : tensors) {
      out.Text(tensor.name).Number(static_cast<uint32_t>(tensor.dims.size()));
      for (const int64_t dim : tensor.dims) out.Number(dim);
      out.Number(tensor.type).Number(tensor.offset.value_or(offset));
      offset += Padded(tensor.data).size();
    }
    return Padded(out.bytes());
  }
  std::string Build() const {
    std::string file = Header();
    for (const Tensor& tensor : tensors) file += Padded(tensor.data);
    return file;
  }

 private:
  std::string Padded(std::string bytes) const {
    const size_t unit = static_cast<size_t>(alignment);
    bytes.resize((bytes.size() + unit - 1) / unit * unit);
    return bytes;
  }
};

}  // namespace sextant
