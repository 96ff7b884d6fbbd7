// Which decoder holds which positions.
#include "services/capture/lease_table.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace sextant {

Decoder* LeaseTable::FindDecoder(StreamId id) {
  const auto found = decoders_.find(id);
  return found == decoders_.end() ? nullptr : &found->second;
}

std::vector<Lease> LeaseTable::Disconnect(StreamId id) {
  std::vector<Lease> ended;
  const auto found = decoders_.find(id);
  if (found == decoders_.end()) return ended;
  for (const LeaseId lease : found->second.leases) {
    ended.push_back(std::move(leases_.at(lease)));
    leases_.erase(lease);
  }
  decoders_.erase(found);
  return ended;
}

LeaseId LeaseTable::Add(Lease lease) {
  const LeaseId id = next_lease_++;
  Decoder& decoder = decoders_.at(lease.decoder);
  decoder.leases.insert(id);
  decoder.held_bytes += static_cast<int64_t>(lease.positions.size()) * lease.position_bytes;
  leases_.emplace(id, std::move(lease));
  return id;
}

Lease* LeaseTable::Find(LeaseId id) {
  const auto found = leases_.find(id);
  return found == leases_.end() ? nullptr : &found->second;
}

bool LeaseTable::HoldsSuspect(const Decoder& decoder) const {
  return std::any_of(decoder.leases.begin(), decoder.leases.end(),
                     [this](LeaseId id) { return leases_.at(id).suspect; });
}

bool LeaseTable::Answer(LeaseId id, int32_t position) {
  Lease* lease = Find(id);
  if (lease == nullptr || lease->positions.erase(position) == 0) return false;
  Decoder& decoder = decoders_.at(lease->decoder);
  decoder.held_bytes -= lease->position_bytes;
  if (lease->positions.empty()) {
    decoder.leases.erase(id);
    leases_.erase(id);
  }
  return true;
}

Lease LeaseTable::Remove(LeaseId id) {
  Lease lease = std::move(leases_.at(id));
  leases_.erase(id);
  Decoder& decoder = decoders_.at(lease.decoder);
  decoder.leases.erase(id);
  decoder.held_bytes -= static_cast<int64_t>(lease.positions.size()) * lease.position_bytes;
  return lease;
}

std::vector<LeaseId> LeaseTable::TakeExpired(absl::Time now) {
  std::vector<LeaseId> expired;
  for (auto& [id, lease] : leases_) {
    if (lease.expired || now < lease.expires) continue;
    lease.expired = true;
    expired.push_back(id);
  }
  return expired;
}

}  // namespace sextant
