// The emulated NCCL: collectives as queued work that is ready when every rank has come.
//
// Every communicator is non-blocking: a call says ncclInProgress, and its work is queued only when
// ncclCommGetAsyncError has been asked a few times. A rank
// that is missing, has died or has aborted leaves the others waiting, as on real devices: only their own
// abort releases them. Who uses NCCL so has to poll instead of waiting, so queries do work once there is a
// communicator.
#include "nccl.h"

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cuda_bf16.h"
#include "kernels/cuda/emulation/executor.h"
#include "kernels/cuda/emulation/nccl_control.h"
#include "kernels/cuda/emulation/nccl_world.h"
#include "kernels/cuda/emulation/runtime.h"

namespace sextant::emulation {
namespace {

// Of its device's memory, by each communicator; real ones take more.
constexpr int64_t kTakenBytes = int64_t{1} << 20;

struct Fault {
  ncclResult_t error = ncclSuccess;
  int64_t operations = 0;  // left before it shows
};

// Guarded by the runtime's lock.
struct Library {
  std::set<ncclComm_t> alive;
  std::map<int, Fault> faults;  // by rank
  std::map<std::string, std::unique_ptr<NcclWorld>> made;
  NcclRules rules;
};
Library& TheLibrary() {
  static Library library;
  return library;
}

size_t SizeOf(ncclDataType_t type) { return type == ncclFloat32 ? 4 : type == ncclBfloat16 ? 2 : 1; }

// What outlives the communicator in queued work.
struct Member {
  std::shared_ptr<NcclWorld> world;
  int rank = 0;
  int rank_count = 0;
  int device = 0;
  bool aborted = false;
  // Calls that are held by graphs.
  std::shared_ptr<int> held = std::make_shared<int>(0);
  ncclResult_t error = ncclSuccess;
  uint64_t next_collective = 0;
  std::map<int, uint64_t> next_sent, next_taken;
  // Ways that were used outside of a capture.
  std::set<std::string> connected;
  uint64_t captured = 0;                                  // sums
  std::map<int, uint64_t> captured_sent, captured_taken;  // by peer

  // Counts down to an injected error.
  void Begin() {
    const auto fault = TheLibrary().faults.find(rank);
    if (fault != TheLibrary().faults.end() && --fault->second.operations < 0) error = fault->second.error;
  }
  bool broken() const { return aborted || error != ncclSuccess; }
};

struct AllReduce {
  std::shared_ptr<Member> member;
  const void* send;
  void* receive;
  NcclCall call;
  bool arrived = false;
  uint64_t number = 0;

  bool Ready() {
    NcclWorld& world = *member->world;
    if (!arrived && !member->broken()) {
      arrived = true;
      member->Begin();
      number = member->next_collective++;
      if (!member->broken()) {
        NcclRankState& self = world.rank(member->rank);
        std::memcpy(world.slot(member->rank, number), send, call.count * SizeOf(ncclDataType_t(call.type)));
        self.calls[number % 2] = call;
        self.arrived.store(number + 1);
      }
    }
    // A broken rank hangs until it is aborted.
    if (member->aborted) return true;
    if (member->broken()) return false;
    for (int peer = 0; peer < member->rank_count; ++peer) {
      if (world.rank(peer).arrived.load() <= number) return false;
    }
    return true;
  }

  void Run() {
    arrived = false;
    if (member->aborted) return;
    NcclWorld& world = *member->world;
    for (int peer = 0; peer < member->rank_count; ++peer) {
      const NcclCall& other = world.rank(peer).calls[number % 2];
      if (other.count == call.count && other.type == call.type && other.captured == call.captured) continue;
      member->error = ncclInvalidUsage;
      return;
    }
    for (size_t i = 0; i < call.count; ++i) {
      float sum = 0;
      for (int peer = 0; peer < member->rank_count; ++peer) {
        const char* slot = world.slot(peer, number);
        const float value = call.type == ncclFloat32
                                ? reinterpret_cast<const float*>(slot)[i]
                                : __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(slot)[i]);
        sum = peer == 0 ? value : sum + value;
      }
      if (call.type == ncclFloat32) {
        static_cast<float*>(receive)[i] = sum;
      } else {
        static_cast<__nv_bfloat16*>(receive)[i] = __float2bfloat16(sum);
      }
    }
  }
};

// The sends and receives between ncclGroupStart and ncclGroupEnd.
struct Exchange {
  struct Transfer {
    bool is_send;
    char* memory;
    size_t bytes;
    int peer;
    uint64_t captured = 0;  // as of NcclCall, of one direction
  };
  std::shared_ptr<Member> member;
  std::vector<Transfer> transfers;
  size_t begun = 0, sends_done = 0, receives_done = 0;

  bool Ready() {
    if (begun++ == 0) member->Begin();
    if (member->aborted) return true;
    if (member->broken()) return false;
    // In order in each direction; a box holds one message.
    while (sends_done < transfers.size() && (!transfers[sends_done].is_send || Put(transfers[sends_done])))
      ++sends_done;
    while (receives_done < transfers.size() &&
           (transfers[receives_done].is_send || Take(transfers[receives_done])))
      ++receives_done;
    return sends_done == transfers.size() && receives_done == transfers.size();
  }

  bool Put(const Transfer& transfer) {
    NcclRankState& self = member->world->rank(member->rank);
    uint64_t& next = member->next_sent[transfer.peer];
    if (self.taken[transfer.peer].load() != next) return false;
    std::memcpy(member->world->box(member->rank, transfer.peer), transfer.memory, transfer.bytes);
    self.message_bytes[transfer.peer] = transfer.bytes;
    self.message_captured[transfer.peer] = transfer.captured;
    self.sent[transfer.peer].store(++next);
    return true;
  }

  bool Take(const Transfer& transfer) {
    NcclRankState& other = member->world->rank(transfer.peer);
    uint64_t& next = member->next_taken[transfer.peer];
    if (other.sent[member->rank].load() == next) return false;
    if (other.message_bytes[member->rank] != transfer.bytes ||
        other.message_captured[member->rank] != transfer.captured) {
      member->error = ncclInvalidUsage;
      return false;
    }
    std::memcpy(transfer.memory, member->world->box(transfer.peer, member->rank), transfer.bytes);
    other.taken[member->rank].store(++next);
    return true;
  }

  void Run() { begun = sends_done = receives_done = 0; }
};

// Of the calling thread.
struct Group {
  int depth = 0;
  cudaStream_t stream = nullptr;
  ncclComm_t comm = nullptr;
  std::vector<Exchange::Transfer> transfers;
};
thread_local Group group;

// NCCL moves data in other ways as there is more of it, each over connections of its own.
std::string WayOf(size_t bytes) {
  return bytes <= size_t{16} << 10 ? "sum, small" : bytes <= size_t{1} << 20 ? "sum, middling" : "sum, large";
}

// Whether the ways of a call can be used now.
ncclResult_t Connect(Member& member, bool capturing, const std::vector<std::string>& ways) {
  const NcclRules& rules = TheLibrary().rules;
  if (capturing && (rules.refuse_captures || rules.refusing_rank == member.rank))
    return ncclUnhandledCudaError;
  for (const std::string& way : ways) {
    if (!capturing || !rules.refuse_first_use_in_capture) {
      member.connected.insert(way);
    } else if (member.connected.count(way) == 0) {
      return ncclInternalError;
    }
  }
  return ncclSuccess;
}

template <typename Work>
ncclResult_t Queue(cudaStream_t stream, std::shared_ptr<Work> work) {
  Operation operation;
  const bool hangs = stream->capture != nullptr && TheLibrary().rules.replays_hang;
  operation.ready = [work, hangs] { return hangs ? work->member->aborted : work->Ready(); };
  operation.run = [work] { work->Run(); };
  operation.held_by_graphs = work->member->held;
  return Runtime::Get().Enqueue(stream, std::move(operation)) == cudaSuccess ? ncclSuccess
                                                                             : ncclUnhandledCudaError;
}

}  // namespace

int LiveNcclCommunicators() {
  const std::lock_guard lock(Runtime::Get().mutex);
  return static_cast<int>(TheLibrary().alive.size());
}
void InjectNcclError(int rank, ncclResult_t error, int64_t operations) {
  const std::lock_guard lock(Runtime::Get().mutex);
  TheLibrary().faults[rank] = {error, operations};
}
void SetNcclRules(const NcclRules& rules) {
  const std::lock_guard lock(Runtime::Get().mutex);
  TheLibrary().rules = rules;
}
void ClearNcclFaults() {
  const std::lock_guard lock(Runtime::Get().mutex);
  TheLibrary().faults.clear();
}

}  // namespace sextant::emulation

using sextant::emulation::AllReduce;
using sextant::emulation::Exchange;
using sextant::emulation::group;
using sextant::emulation::kNcclMaxRanks;
using sextant::emulation::kNcclSlotBytes;
using sextant::emulation::kTakenBytes;
using sextant::emulation::Library;
using sextant::emulation::NcclWorld;
using sextant::emulation::Runtime;
using sextant::emulation::TheLibrary;

struct ncclComm {
  std::shared_ptr<sextant::emulation::Member> member;
  bool in_progress = false;
  int progress_answers = 0;  // to give
  // What the call in progress does at last.
  std::function<ncclResult_t()> work;
  bool joined = false;
  std::chrono::steady_clock::time_point joins_at{};

  ncclResult_t Begin(std::function<ncclResult_t()> then = nullptr) {
    const std::lock_guard lock(Runtime::Get().mutex);
    // As NCCL says: the communicator was used before the previous call had returned ncclSuccess.
    if (in_progress) return ncclInvalidArgument;
    in_progress = true;
    progress_answers = TheLibrary().rules.progress_answers;
    work = std::move(then);
    return ncclInProgress;
  }
  ncclResult_t Progress() {
    if (!in_progress || member->error != ncclSuccess) return member->error;
    if (progress_answers-- > 0) return ncclInProgress;
    in_progress = false;
    if (const auto last = std::exchange(work, nullptr); last != nullptr) member->error = last();
    return member->error;
  }
};

namespace {

ncclResult_t Transfer(bool is_send, const void* memory, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  const size_t bytes = count * sextant::emulation::SizeOf(type);
  if (group.depth == 0 || bytes > size_t{kNcclSlotBytes} || peer < 0 || peer >= comm->member->rank_count ||
      (group.comm != nullptr && group.comm != comm)) {
    return ncclInvalidUsage;
  }
  group.comm = comm;
  group.stream = stream;
  group.transfers.push_back({is_send, static_cast<char*>(const_cast<void*>(memory)), bytes, peer});
  return ncclSuccess;
}

// NCCL ends only when no graph holds its calls; until then it waits, for ever if need be.
void AwaitGraphs(std::unique_lock<std::recursive_mutex>& lock, const sextant::emulation::Member& member) {
  for (const CUstream_st* stream : Runtime::Get().streams) {
    if (stream->device == member.device && stream->capture != nullptr)
      sextant::emulation::Fail("NCCL's communicator is ended while a stream of its device is captured");
  }
  Runtime::Get().changed.wait(lock, [&member] { return *member.held == 0; });
}

void Free(ncclComm_t comm) {
  TheLibrary().alive.erase(comm);
  Runtime::Get().bytes_in_use[comm->member->device] -= kTakenBytes;
  comm->member->world->RemoveName();
  delete comm;
}

}  // namespace

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int> next = 0;
  std::memset(id, 0, sizeof *id);
  std::snprintf(id->internal, sizeof id->internal, "/sextant-emulated-nccl-%d-%d", getpid(), next++);
  std::unique_ptr<NcclWorld> world = NcclWorld::Create(id->internal);
  if (world == nullptr) return ncclSystemError;
  const std::lock_guard lock(Runtime::Get().mutex);
  TheLibrary().made[id->internal] = std::move(world);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int rank_count, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config == nullptr || config->blocking != 0 || rank < 0 || rank >= rank_count ||
      rank_count > kNcclMaxRanks)
    return ncclInvalidArgument;
  std::shared_ptr<NcclWorld> world = NcclWorld::Open(id.internal);
  if (world == nullptr) return ncclSystemError;
  auto member = std::make_shared<sextant::emulation::Member>();
  member->world = world;
  member->rank = rank;
  member->device = sextant::emulation::CurrentDevice();
  member->rank_count = rank_count;
  *comm = new ncclComm;
  (*comm)->member = std::move(member);
  world->header().joined.fetch_add(1);
  const std::lock_guard lock(Runtime::Get().mutex);
  Runtime::Get().schedule.queries_run = true;
  TheLibrary().alive.insert(*comm);
  Runtime::Get().bytes_in_use[(*comm)->member->device] += kTakenBytes;
  // The one that made the name has the memory mapped twice no longer.
  TheLibrary().made.erase(id.internal);
  (*comm)->joins_at = std::chrono::steady_clock::now() + TheLibrary().rules.joins_after;
  return (*comm)->Begin();
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  const std::lock_guard lock(Runtime::Get().mutex);
  *error = comm->member->error;
  if (*error != ncclSuccess) return ncclSuccess;
  if (!comm->joined) {
    comm->joined =
        comm->member->world->header().joined.load() >= static_cast<uint32_t>(comm->member->rank_count) &&
        std::chrono::steady_clock::now() >= comm->joins_at;
    if (comm->joined) comm->member->world->RemoveName();
  }
  *error = comm->joined ? comm->Progress() : ncclInProgress;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  std::unique_lock lock(Runtime::Get().mutex);
  AwaitGraphs(lock, *comm->member);
  return comm->Begin();
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const std::lock_guard lock(Runtime::Get().mutex);
  Free(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  std::unique_lock lock(Runtime::Get().mutex);
  Runtime::Get().changed.wait(lock, [] { return !TheLibrary().rules.aborts_hang; });
  const std::chrono::milliseconds takes(TheLibrary().rules.abort_milliseconds);
  Runtime::Get().changed.wait_for(lock, takes, [] { return false; });
  comm->member->aborted = true;
  Runtime::Get().changed.notify_all();
  AwaitGraphs(lock, *comm->member);
  Free(comm);
  return ncclSuccess;
}

const char* ncclGetLastError(ncclComm_t) { return "what NCCL's own log would say"; }

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclInProgress:
      return "NCCL operation in progress";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInvalidUsage:
      return "invalid usage (ranks differ in what they called)";
    default:
      return "emulated NCCL error";
  }
}

ncclResult_t ncclAllReduce(const void* send, void* receive, size_t count, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
  if (operation != ncclSum || (type != ncclFloat32 && type != ncclBfloat16) ||
      count * sextant::emulation::SizeOf(type) > size_t{kNcclSlotBytes}) {
    return ncclInvalidArgument;
  }
  auto work = std::make_shared<AllReduce>();
  work->member = comm->member;
  work->send = send;
  work->receive = receive;
  return comm->Begin([=, bytes = count * sextant::emulation::SizeOf(type)] {
    const bool capturing = stream->capture != nullptr;
    const ncclResult_t connected =
        sextant::emulation::Connect(*work->member, capturing, {sextant::emulation::WayOf(bytes)});
    if (connected != ncclSuccess) return connected;
    work->call = {count, type, capturing ? ++work->member->captured : 0};
    return sextant::emulation::Queue(stream, work);
  });
}

ncclResult_t ncclSend(const void* send, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return Transfer(true, send, count, type, peer, comm, stream);
}
ncclResult_t ncclRecv(void* receive, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return Transfer(false, receive, count, type, peer, comm, stream);
}

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (group.depth == 0) return ncclInvalidUsage;
  if (--group.depth > 0 || group.transfers.empty()) return ncclSuccess;
  auto work = std::make_shared<Exchange>();
  const ncclComm_t comm = group.comm;
  const cudaStream_t stream = group.stream;
  work->member = comm->member;
  work->transfers = std::move(group.transfers);
  group = {};
  return comm->Begin([=] {
    const bool capturing = stream->capture != nullptr;
    std::vector<std::string> ways;
    for (Exchange::Transfer& transfer : work->transfers) {
      ways.push_back((transfer.is_send ? "to " : "from ") + std::to_string(transfer.peer));
      auto& captured = transfer.is_send ? work->member->captured_sent : work->member->captured_taken;
      if (capturing) transfer.captured = ++captured[transfer.peer];
    }
    const ncclResult_t connected = sextant::emulation::Connect(*work->member, capturing, ways);
    return connected == ncclSuccess ? sextant::emulation::Queue(stream, work) : connected;
  });
}

}  // extern "C"
