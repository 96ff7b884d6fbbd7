// The memory in which the ranks of an emulated NCCL communicator meet: threads of one process, or processes
// of one machine.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

namespace sextant::emulation {

// A collective moves at most so much of one rank at a time.
inline constexpr int64_t kNcclSlotBytes = int64_t{8} << 20;
inline constexpr int kNcclMaxRanks = 8;

// What a rank does in its present collective; ranks that differ have lost step.
struct NcclCall {
  uint64_t count = 0;
  int type = 0;
  // Captured calls of this communicator up to this one; 0: not captured. Whether a call is captured, and in
  // which capture, must be the same on all ranks.
  uint64_t captured = 0;
};

struct NcclRankState {
  // Collectives it has put its data into a slot for.
  std::atomic<uint64_t> arrived;
  NcclCall calls[2];
  // Messages to each peer that were put into the box, and taken out by the peer.
  std::atomic<uint64_t> sent[kNcclMaxRanks], taken[kNcclMaxRanks];
  uint64_t message_bytes[kNcclMaxRanks];
  uint64_t message_captured[kNcclMaxRanks];  // as of NcclCall, of the messages to this peer
};

struct NcclHeader {
  std::atomic<uint32_t> rank_count;
  std::atomic<uint32_t> joined;
  NcclRankState ranks[kNcclMaxRanks];
};

// Named shared memory, sparse. The name goes when all have joined, or with the rank that made it.
class NcclWorld {
 public:
  // Null when the system refuses, or there is nothing of that name.
  static std::unique_ptr<NcclWorld> Create(const std::string& name);
  static std::unique_ptr<NcclWorld> Open(const std::string& name);
  ~NcclWorld();

  NcclHeader& header() const { return *header_; }
  NcclRankState& rank(int index) const { return header_->ranks[index]; }
  // Of collective number `number`.
  char* slot(int rank, uint64_t number) const { return Part(rank * 2 + static_cast<int>(number % 2)); }
  // The message on its way from one rank to another.
  char* box(int from, int to) const { return Part(2 * kNcclMaxRanks + from * kNcclMaxRanks + to); }
  void RemoveName() const;

 private:
  NcclWorld(std::string name, void* memory);
  char* Part(int index) const;

  const std::string name_;
  NcclHeader* const header_;
};

}  // namespace sextant::emulation
