// A scripted lens decoder: it pulls leases, checks the rows it is given, and answers in pieces.
#pragma once

#include <deque>
#include <vector>

#include "services/capture/testing/world.h"

namespace sextant::testing {

class LensActor final : public Actor {
 public:
  explicit LensActor(World& world) : world_(world) {}

  void Offer(std::vector<Step>& steps) override;
  void Do(int what, int which) override;
  void OnServiceDown() override;
  void OnClosed(StreamId stream, const absl::Status& status) override;

 private:
  enum What { kStart, kPull, kWork, kDeliver, kNotice, kDie, kRelease, kLeaseRunsOut };

  struct Work {
    internal::v1::Lease lease;
    std::string data;
    bool whole = false;
    // Positions answered so far, the first ones.
    int answered = 0;
    absl::Time taken;
  };
  void Start();
  void Pull();
  void Answer();
  void Die();

  World& world_;
  bool alive_ = false;
  // 0: not connected. Outlives the decoder until the service notices its death.
  StreamId stream_ = 0;
  std::deque<Work> work_;
  std::deque<internal::v1::DecoderMessage> up_;
};

}  // namespace sextant::testing
