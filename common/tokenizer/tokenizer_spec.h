// What a model folder or file says about its tokenizer, whatever format said it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/tokenizer/added_tokens.h"
#include "common/tokenizer/bpe.h"

namespace sextant {

struct TokenizerSpec {
  // The bytes of each id; empty where an id has none. Added tokens have their content.
  std::vector<std::string> token_bytes;
  // Ids that merging may produce; the others come from added tokens only.
  std::vector<bool> mergeable;
  std::vector<BpeMerge> merges;
  // A piece that is a token as a whole becomes it, whatever the merge rules say.
  bool whole_pieces = false;
  std::vector<AddedToken> added_tokens;
  bool normalize_nfc = false;
  std::vector<std::string> split_expressions;
  // Ids that the tokenizer adds of itself around a text.
  std::vector<int32_t> prefix_ids;
  std::vector<int32_t> suffix_ids;
  // The model's Jinja chat template; empty if it has none.
  std::string chat_template;
};

}  // namespace sextant
