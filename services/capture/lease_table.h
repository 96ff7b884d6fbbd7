// Which decoder holds which positions, and how much each has room for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/time/time.h"
#include "services/capture/capture_id.h"
#include "services/capture/rank_streams.h"
#include "sextant/internal/v1/capture.pb.h"

namespace sextant {

using LeaseId = int64_t;

// Whole positions of one capture, lent to one decoder.
struct Lease {
  StreamId decoder = 0;
  CaptureId capture;
  // Those without a result so far.
  absl::btree_set<int32_t> positions = {};
  int64_t position_bytes = 0;
  absl::Time expires = absl::InfiniteFuture();
  // The positions may be leased to others as well. The decoder still works on them, and holds them.
  bool expired = false;
  // Its one position may have ended a decoder: whoever takes it takes nothing else.
  bool suspect = false;
};

struct Decoder {
  std::string name;
  absl::btree_set<std::string> digests;
  // Bytes it is ready to hold in all, and holds.
  int64_t want_bytes = 0;
  int64_t held_bytes = 0;
  bool greeted = false;
  // It has said that it wants nothing any more: it was told to end.
  bool leaving = false;
  absl::btree_set<LeaseId> leases;
  // The lease being sent: rows on their way, of which `sent` bytes are gone already.
  LeaseId sending = 0;
  std::string data;
  int64_t sent = 0;
};

// Not thread-safe.
class LeaseTable {
 public:
  Decoder& Connect(StreamId id) { return decoders_[id]; }
  // Null if the decoder is gone.
  Decoder* FindDecoder(StreamId id);
  // The decoder is gone; returns its leases, which end.
  std::vector<Lease> Disconnect(StreamId id);

  LeaseId Add(Lease lease);
  Lease* Find(LeaseId id);
  // Whether one of the decoder's leases is suspect.
  bool HoldsSuspect(const Decoder& decoder) const;
  // A result of one position is in; the lease ends with its last one. False if the lease does not have it.
  bool Answer(LeaseId id, int32_t position);
  // Ends the lease, which the decoder gives back.
  Lease Remove(LeaseId id);
  // Leases whose time is over, each once.
  std::vector<LeaseId> TakeExpired(absl::Time now);

  const absl::btree_map<StreamId, Decoder>& decoders() const { return decoders_; }
  const absl::btree_map<LeaseId, Lease>& leases() const { return leases_; }

 private:
  absl::btree_map<StreamId, Decoder> decoders_;
  absl::btree_map<LeaseId, Lease> leases_;
  LeaseId next_lease_ = 1;
};

}  // namespace sextant
