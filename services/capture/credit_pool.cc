// Lends the budget for transient rows to captures, position by position.
#include "services/capture/credit_pool.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "services/capture/errors.h"

namespace sextant {

CreditPool::CreditPool(int64_t budget_bytes, const ProtocolPolicy& policy)
    : budget_bytes_(budget_bytes), floors_bytes_(budget_bytes / 2), policy_(policy) {}

absl::Status CreditPool::Open(const CaptureId& id, int64_t position_bytes, int64_t max_positions) {
  if (position_bytes > floors_bytes_) return PositionTooBigError(position_bytes, floors_bytes_);
  if (policy_.whole_positions_and_floors && reserved_floors_ + position_bytes > floors_bytes_) {
    return CaptureBudgetError(
        absl::StrCat("open captures have reserved ", reserved_floors_, " of ", floors_bytes_,
                     " bytes, one position each: wait for one to end, or raise --budget_mb"));
  }
  Account account{.position_bytes = position_bytes, .most_bytes = position_bytes * max_positions};
  const bool is_new = accounts_.emplace(id, account).second;
  SEXTANT_CHECK(is_new);
  reserved_floors_ += position_bytes;
  return absl::OkStatus();
}

void CreditPool::Attach(const CaptureId& id) { accounts_.at(id).lends = true; }

void CreditPool::Free(const CaptureId& id, int64_t positions) {
  Account& account = accounts_.at(id);
  loans_ -= Loan(account);
  account.freed += positions * account.position_bytes;
  outstanding_ -= positions * account.position_bytes;
  loans_ += Loan(account);
}

void CreditPool::Seal(const CaptureId& id, int64_t positions) {
  Account& account = accounts_.at(id);
  loans_ -= Loan(account);
  outstanding_ += positions * account.position_bytes - account.granted;
  account.granted = positions * account.position_bytes;
  account.lends = false;
  loans_ += Loan(account);
}

void CreditPool::Close(const CaptureId& id) {
  const auto found = accounts_.find(id);
  if (found == accounts_.end()) return;
  if (!policy_.return_credit_at_close) {
    found->second.lends = false;
    return;
  }
  loans_ -= Loan(found->second);
  outstanding_ -= found->second.outstanding();
  reserved_floors_ -= found->second.position_bytes;
  accounts_.erase(found);
}

int64_t CreditPool::Loan(const Account& account) const {
  return std::max<int64_t>(0, account.outstanding() - account.position_bytes);
}

int64_t CreditPool::Unit(const Account& account) const {
  return policy_.whole_positions_and_floors ? account.position_bytes
                                            : std::max<int64_t>(1, account.position_bytes / 2);
}

bool CreditPool::CanLend(const Account& account, int64_t unit) const {
  if (!account.lends || account.granted + unit > account.most_bytes) return false;
  if (!policy_.whole_positions_and_floors) return outstanding_ + unit <= budget_bytes_;
  if (account.outstanding() < account.position_bytes) return true;
  return loans_ + unit <= budget_bytes_ - floors_bytes_;
}

std::vector<CaptureId> CreditPool::Lend() {
  std::vector<CaptureId> grown;
  size_t refused = 0;
  auto next = accounts_.upper_bound(cursor_);
  while (refused < accounts_.size()) {
    if (next == accounts_.end()) next = accounts_.begin();
    Account& account = next->second;
    const int64_t unit = Unit(account);
    if (CanLend(account, unit)) {
      loans_ -= Loan(account);
      account.granted += unit;
      outstanding_ += unit;
      loans_ += Loan(account);
      cursor_ = next->first;
      grown.push_back(next->first);
      refused = 0;
    } else {
      ++refused;
    }
    ++next;
  }
  std::sort(grown.begin(), grown.end());
  grown.erase(std::unique(grown.begin(), grown.end()), grown.end());
  return grown;
}

int64_t CreditPool::granted_bytes(const CaptureId& id) const {
  const auto found = accounts_.find(id);
  return found == accounts_.end() ? 0 : found->second.granted;
}

int64_t CreditPool::outstanding_bytes(const CaptureId& id) const {
  const auto found = accounts_.find(id);
  return found == accounts_.end() ? 0 : found->second.outstanding();
}

int64_t CreditPool::committed_bytes() const {
  int64_t sum = 0;
  for (const auto& [id, account] : accounts_) {
    sum += std::max(account.outstanding(), account.position_bytes);
  }
  return sum;
}

int64_t CreditPool::total_outstanding_bytes() const { return outstanding_; }

}  // namespace sextant
