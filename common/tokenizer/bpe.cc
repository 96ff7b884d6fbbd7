// Byte-pair merging: bytes of one piece of text to token ids.
#include "common/tokenizer/bpe.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/tokenizer/errors.h"

namespace sextant {
namespace {

// A stretch of the piece, linked to its neighbours; -1 is none. A stretch merged into its left one has id -1.
struct Symbol {
  int32_t id;
  int32_t previous;
  int32_t next;
};

// A merge that was possible when it was queued, ordered by rank, then leftmost: rank << 32 | place.
using Candidate = uint64_t;

Candidate MakeCandidate(int32_t rank, int32_t at) {
  return static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(at);
}

// The candidates of one piece, least first. Those of the bytes as given are sorted once; only those that
// merging makes go through a heap, which so stays small enough for the processor's caches.
class CandidateQueue {
 public:
  explicit CandidateQueue(std::vector<Candidate> given) : given_(std::move(given)) {
    std::sort(given_.begin(), given_.end());
  }
  void Push(Candidate candidate) { made_.push(candidate); }
  // False when there is none left.
  bool Pop(Candidate* least) {
    const bool has_given = next_given_ < given_.size();
    if (!has_given && made_.empty()) return false;
    if (made_.empty() || (has_given && given_[next_given_] < made_.top())) {
      *least = given_[next_given_++];
    } else {
      *least = made_.top();
      made_.pop();
    }
    return true;
  }

 private:
  std::vector<Candidate> given_;
  size_t next_given_ = 0;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> made_;
};

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

absl::StatusOr<Bpe> Bpe::Create(const std::vector<std::string>& token_bytes,
                                const std::vector<BpeMerge>& merges, bool whole_pieces) {
  Bpe bpe;
  bpe.whole_pieces_ = whole_pieces;
  bpe.id_of_byte_.fill(-1);
  for (size_t id = 0; id < token_bytes.size(); ++id) {
    const std::string& bytes = token_bytes[id];
    if (bytes.size() == 1) bpe.id_of_byte_[static_cast<uint8_t>(bytes[0])] = static_cast<int32_t>(id);
    if (whole_pieces && !bytes.empty()) bpe.id_of_bytes_.emplace(bytes, static_cast<int32_t>(id));
  }
  for (int byte = ' '; byte <= '~'; ++byte) {
    if (bpe.id_of_byte_[byte] < 0) {
      return TokenizerInvalid(absl::StrCat("the vocabulary has no token for the single byte ", byte,
                                           "; only byte-level vocabularies are supported"));
    }
  }
  const auto in_range = [&](int32_t id) { return id >= 0 && static_cast<size_t>(id) < token_bytes.size(); };
  bpe.merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const BpeMerge& merge = merges[rank];
    if (!in_range(merge.left) || !in_range(merge.right) || !in_range(merge.result)) {
      return TokenizerInvalid(absl::StrCat("merge rule ", rank, " names a token that does not exist"));
    }
    // As in the reference implementation, a repeated pair takes its last rule.
    bpe.merges_[PairKey(merge.left, merge.right)] = {static_cast<int32_t>(rank), merge.result};
  }
  return bpe;
}

const Bpe::Merge* Bpe::FindMerge(int32_t left, int32_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::Encode(absl::string_view piece, std::vector<int32_t>* ids) const {
  if (whole_pieces_) {
    const auto found = id_of_bytes_.find(piece);
    if (found != id_of_bytes_.end()) {
      ids->push_back(found->second);
      return;
    }
  }
  EncodeByMerging(piece, ids);
}

void Bpe::EncodeByMerging(absl::string_view piece, std::vector<int32_t>* ids) const {
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (const char c : piece) {
    const int32_t id = id_of_byte_[static_cast<uint8_t>(c)];
    const int32_t at = static_cast<int32_t>(symbols.size());
    if (id >= 0) symbols.push_back({id, at - 1, at + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  const int32_t count = static_cast<int32_t>(symbols.size());
  std::vector<Candidate> given;
  given.reserve(piece.size());
  const auto candidate_at = [&](int32_t at) -> const Merge* {
    const int32_t next = symbols[at].next;
    return next < 0 ? nullptr : FindMerge(symbols[at].id, symbols[next].id);
  };
  for (int32_t i = 0; i + 1 < count; ++i) {
    if (const Merge* merge = candidate_at(i)) given.push_back(MakeCandidate(merge->rank, i));
  }
  CandidateQueue queue(std::move(given));
  const auto offer = [&](int32_t at) {
    if (at < 0) return;
    if (const Merge* merge = candidate_at(at)) queue.Push(MakeCandidate(merge->rank, at));
  };
  Candidate best;
  while (queue.Pop(&best)) {
    const int32_t at = static_cast<int32_t>(best & 0xFFFFFFFF);
    if (symbols[at].id < 0) continue;
    const Merge* merge = candidate_at(at);
    // The neighbours have changed since it was queued.
    if (merge == nullptr || MakeCandidate(merge->rank, at) != best) continue;
    Symbol& left = symbols[at];
    Symbol& right = symbols[left.next];
    left.id = merge->result;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[left.next].previous = at;
    offer(left.previous);
    offer(at);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) ids->push_back(symbols[i].id);
}

}  // namespace sextant
