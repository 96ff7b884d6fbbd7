// Lends the budget for transient rows to captures, position by position.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "services/capture/capture_id.h"
#include "services/capture/protocol_policy.h"

namespace sextant {

// Credit exists here only: a capture's outstanding credit is what it was granted less what was freed. Half of
// the budget is floors: every open capture reserves one position of it, so a capture with nothing outstanding
// is always granted one. What is above floors, the other half, is lent round robin. Grants are running totals
// of whole positions. Not thread-safe.
class CreditPool {
 public:
  CreditPool(int64_t budget_bytes, const ProtocolPolicy& policy);

  // Reserves the floor of a new capture. RESOURCE_EXHAUSTED POSITION_TOO_BIG or CAPTURE_BUDGET.
  absl::Status Open(const CaptureId& id, int64_t position_bytes, int64_t max_positions);
  // From now on the capture is lent to.
  void Attach(const CaptureId& id);
  // `positions` of the capture are decoded or given up.
  void Free(const CaptureId& id, int64_t positions);
  // Nothing more will be recorded: takes back what was granted beyond `positions`.
  void Seal(const CaptureId& id, int64_t positions);
  // Takes back everything.
  void Close(const CaptureId& id);

  // Lends what can be lent. Returns the captures whose total has grown.
  std::vector<CaptureId> Lend();

  // 0 for a capture that is not here.
  int64_t granted_bytes(const CaptureId& id) const;
  int64_t outstanding_bytes(const CaptureId& id) const;
  // The sum over captures of max(outstanding, floor): never more than the budget.
  int64_t committed_bytes() const;
  int64_t total_outstanding_bytes() const;
  int64_t budget_bytes() const { return budget_bytes_; }
  // The largest position that can be opened.
  int64_t max_position_bytes() const { return floors_bytes_; }
  size_t size() const { return accounts_.size(); }

 private:
  struct Account {
    int64_t position_bytes = 0;
    int64_t most_bytes = 0;
    int64_t granted = 0;
    int64_t freed = 0;
    bool lends = false;
    int64_t outstanding() const { return granted - freed; }
  };
  bool CanLend(const Account& account, int64_t unit) const;
  int64_t Unit(const Account& account) const;
  int64_t Loan(const Account& account) const;

  const int64_t budget_bytes_;
  const int64_t floors_bytes_;
  const ProtocolPolicy policy_;
  absl::btree_map<CaptureId, Account> accounts_;
  // Sums over accounts, kept so that a grant costs the same however many captures there are.
  int64_t reserved_floors_ = 0;
  int64_t loans_ = 0;
  int64_t outstanding_ = 0;
  // Where the next round begins.
  CaptureId cursor_;
};

}  // namespace sextant
