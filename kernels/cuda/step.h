// Turns the launches between BeginStep and EndStep into one replayed graph, when they come again.
//
// Launches are collected with a key that says everything they were given but the contents of their argument
// block. A list of launches seen before is captured, with its argument blocks at fixed addresses; from then
// on the same list only fills the blocks, copies them in one piece, and launches the graph. Nothing is
// launched before the whole list is known, so a list that differs anywhere is simply another one. A list of
// which no graph can be made is launched plainly whenever it comes: that is slower, and no fault.
//
// A library whose calls belong together over several processes (a collective) may want them captured by all
// or by none, and only graphs that were captured together replayed together. Lists with such calls ask the
// peers first; see StepPeers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cuda/argument_ring.h"
#include "kernels/cuda/captured_graph.h"
#include "kernels/cuda/memory.h"
#include "kernels/tensor.h"

namespace sextant::cuda {

// Queues kernels that read `arguments` (device memory, null without any).
using Launcher = std::function<absl::Status(cudaStream_t stream, const char* arguments)>;

// What a launch was given, as bytes.
class LaunchKey {
 public:
  explicit LaunchKey(absl::string_view operation) : bytes_(operation) {}
  template <typename T>
  LaunchKey& Add(const T& value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T> || std::is_pointer_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    if constexpr (std::is_pointer_v<T>) Touch(value);
    return *this;
  }
  LaunchKey& Add(const Tensor& tensor) {
    return Add(tensor.data).Add(tensor.dtype).Add(tensor.rows).Add(tensor.cols).Add(tensor.stride);
  }
  // The launch reads or writes there, which its arguments say and not its key.
  LaunchKey& Touch(const void* memory) {
    touched_.push_back(memory);
    return *this;
  }
  const std::string& bytes() const { return bytes_; }
  // Where the memory starts that the launch reads or writes.
  absl::Span<const void* const> touched() const { return touched_; }

 private:
  std::string bytes_;
  absl::InlinedVector<const void*, 8> touched_;
};

// The other processes whose steps hold calls that belong to this one's. Every one of them asks the same
// questions in the same order.
class StepPeers {
 public:
  virtual ~StepPeers() = default;
  // Values are below this.
  static constexpr int32_t kMostValue = 1 << 22;
  // Whether all peers gave the same value, and the least of them. REQUIRES: 0 <= value < kMostValue. Errors:
  // of the group.
  struct Answer {
    int32_t least = 0;
    bool same = false;
  };
  virtual absl::StatusOr<Answer> Compare(int32_t value) = 0;
};

// Of one stream; one thread at a time.
class Step {
 public:
  // Keeps at most `most_graphs`. REQUIRES: most_graphs > 0.
  explicit Step(int32_t most_graphs) : most_graphs_(most_graphs) {}
  ~Step();

  bool collecting() const { return collecting_; }
  void Begin() {
    collecting_ = true;
    asked_ = false;
  }
  // Of what is collected now.
  int64_t argument_bytes() const { return argument_bytes_; }
  // What `bytes` more arguments take.
  static int64_t RoundedUp(int64_t bytes);
  // `peers`, if any, are asked about the list. REQUIRES: collecting(); the same peers in all of a step.
  void Add(const LaunchKey& key, std::vector<char> arguments, Launcher launcher, StepPeers* peers = nullptr);
  // Launches what was collected so far; `whole`: since Begin, up to the end of the step.
  absl::Status Flush(Allocator& allocator, ArgumentRing& ring, cudaStream_t stream, bool whole);
  void End() { collecting_ = false; }
  // Drops all graphs: an address they hold is about to go. REQUIRES: nothing is collected.
  void Forget();

  const StepCounters& counters() const { return counters_; }

 private:
  struct Entry {
    std::vector<char> arguments;
    int64_t offset = 0;  // of the arguments in their block
    Launcher launcher;
  };
  struct Graph {
    Buffer arguments;
    CapturedGraph executable;
    int64_t last_used = 0;
    int32_t number = 0;  // the same of all that were captured together; 0 without peers
  };
  enum class Way { kPlain, kCapture, kReplay };

  // How the list is to be launched, which all peers do alike.
  absl::StatusOr<Way> Choose(bool whole);
  // Makes the list's graph. False when it cannot be made, here or by a peer: then nobody has one.
  absl::StatusOr<bool> MakeGraph(Allocator& allocator, cudaStream_t stream);
  absl::Status Launch(Allocator& allocator, ArgumentRing& ring, cudaStream_t stream, bool whole);
  absl::Status Capture(Allocator& allocator, cudaStream_t stream, Graph& graph);
  // Asks the peers, if any: not OK when one of them, or this process, cannot capture the list.
  absl::Status PeersCapture(bool self);
  // A block for the arguments of a graph, if it can one of a graph that is no more: what reads it has been
  // queued.
  absl::StatusOr<Buffer> ArgumentBlock(Allocator& allocator);
  absl::Status LaunchAll(cudaStream_t stream, const char* arguments) const;
  absl::Status FillArguments(ArgumentRing& ring, cudaStream_t stream) const;
  // Puts the list's graph among those that are kept, in place of the one that it had or was used longest ago.
  void Keep(Graph graph);
  // Leaves the arguments' block to the next graph.
  void Drop(absl::flat_hash_map<std::string, Graph>::iterator graph);

  const int32_t most_graphs_;
  bool collecting_ = false;
  std::string key_;
  std::vector<Entry> entries_;
  int64_t argument_bytes_ = 0;
  StepPeers* peers_ = nullptr;  // of the list that is collected
  bool asked_ = false;          // in this step
  int32_t last_number_ = 0;

  absl::flat_hash_map<std::string, Graph> graphs_;
  std::vector<Buffer> free_blocks_;
  // Hashes of lists: seen once; of which no graph could be made.
  absl::flat_hash_set<size_t> seen_, uncapturable_;
  int64_t clock_ = 0;
  StepCounters counters_;
};

}  // namespace sextant::cuda
