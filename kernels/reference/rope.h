// The plain head norm, rotation and KV write: the oracle of the others.
#pragma once

#include "kernels/backend.h"

namespace sextant::reference {

// Backend::RopeAndCache.
void RopeAndCache(const RopeArgs& args, const AttentionBatch& batch);

}  // namespace sextant::reference
