// The one place where the forward pass can be looked into and changed.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "sextant/v1/types.pb.h"

namespace sextant {

using Site = sextant::v1::Site;

// Called by the layer loop at every site of every layer, prefill and decode alike: 7 calls a layer and step.
class LayerHooks {
 public:
  virtual ~LayerHooks() = default;
  // `activation` [rows of the batch and padding, hidden_size] is the whole row on every rank: F32 for
  // resid_*, attn_out and mlp_out, compute dtype for attn_in and mlp_in. What is queued on `stream` here
  // (steering in place, recording) runs before the next operation of the layer reads the activation.
  virtual void OnSite(Stream& stream, Site site, int32_t layer, Tensor activation) = 0;
  // False: OnSite changes nothing here in this step, and may be called after the operation that reads the
  // activation next was queued. The same on every rank.
  virtual bool ChangesAt(Site /*site*/, int32_t /*layer*/) const { return true; }
};

}  // namespace sextant
