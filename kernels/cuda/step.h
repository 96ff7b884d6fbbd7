// Turns the launches between BeginStep and EndStep into one replayed graph, when they come again.
//
// Launches are collected with a key that says everything they were given but the contents of their argument
// block. A list of launches seen before is captured, with its argument blocks at fixed addresses; from then
// on the same list only fills the blocks, copies them in one piece, and launches the graph. Nothing is
// launched before the whole list is known, so a list that differs anywhere is simply another one.
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
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/cuda/argument_ring.h"
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

struct StepCounters {
  int64_t replayed = 0;  // lists launched as a graph
  int64_t captured = 0;  // graphs made
  int64_t plain = 0;     // lists launched one by one
};

// Of one stream; one thread at a time.
class Step {
 public:
  ~Step();

  bool collecting() const { return collecting_; }
  void Begin() { collecting_ = true; }
  // Of what is collected now.
  int64_t argument_bytes() const { return argument_bytes_; }
  // What `bytes` more arguments take.
  static int64_t RoundedUp(int64_t bytes);
  // REQUIRES: collecting().
  void Add(const LaunchKey& key, std::vector<char> arguments, Launcher launcher);
  // Launches what was collected so far.
  absl::Status Flush(Allocator& allocator, ArgumentRing& ring, cudaStream_t stream);
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
    cudaGraphExec_t executable = nullptr;
    Buffer arguments;
    int64_t last_used = 0;
  };

  absl::Status Capture(Allocator& allocator, cudaStream_t stream, Graph& graph);
  absl::Status LaunchAll(cudaStream_t stream, const char* arguments) const;
  absl::Status FillArguments(ArgumentRing& ring, cudaStream_t stream) const;
  void DropOldest();

  bool collecting_ = false;
  std::string key_;
  std::vector<Entry> entries_;
  int64_t argument_bytes_ = 0;

  absl::flat_hash_map<std::string, Graph> graphs_;
  // Hashes of lists seen once.
  absl::flat_hash_set<size_t> seen_;
  int64_t clock_ = 0;
  StepCounters counters_;
};

}  // namespace sextant::cuda
