// Byte-pair merging: bytes of one piece of text to token ids.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sextant {

// One merge rule; its rank is its place in the list.
struct BpeMerge {
  int32_t left;
  int32_t right;
  int32_t result;
};

// The vocabulary and merge rules of one tokenizer. Threads: const methods from any.
class Bpe {
 public:
  // `token_bytes[i]` are the bytes of id i; an empty string is an id that text never becomes. With
  // `whole_pieces`, a piece that is a token as a whole becomes that token even where the merge rules would
  // not build it. A byte without a token of its own is left out of the ids, as the reference implementation
  // does (vocabularies may lack some control characters). INVALID_ARGUMENT / TOKENIZER_INVALID when a
  // printable ASCII byte has none or a rule names an id out of range.
  static absl::StatusOr<Bpe> Create(const std::vector<std::string>& token_bytes,
                                    const std::vector<BpeMerge>& merges, bool whole_pieces);

  // Appends the ids of `piece` to `ids`. O(n log n) in its length.
  void Encode(absl::string_view piece, std::vector<int32_t>* ids) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t result;
  };

  Bpe() = default;
  const Merge* FindMerge(int32_t left, int32_t right) const;
  void EncodeByMerging(absl::string_view piece, std::vector<int32_t>* ids) const;

  bool whole_pieces_ = false;
  std::array<int32_t, 256> id_of_byte_{};
  absl::flat_hash_map<std::string, int32_t> id_of_bytes_;  // filled only with whole_pieces_
  absl::flat_hash_map<uint64_t, Merge> merges_;            // key: left << 32 | right
};

}  // namespace sextant
