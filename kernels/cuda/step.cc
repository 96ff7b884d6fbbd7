// Turns the launches between BeginStep and EndStep into one replayed graph, when they come again.
#include "kernels/cuda/step.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/check.h"
#include "kernels/cuda/status.h"
#include "kernels/status_macros.h"

namespace sextant::cuda {
namespace {

constexpr int64_t kAlignment = 256;
// A graph of a large model's step is some megabytes of host memory.
constexpr size_t kMostGraphs = 64;
constexpr size_t kMostSeen = 4096;

}  // namespace

int64_t Step::RoundedUp(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

Step::~Step() { Forget(); }

void Step::Forget() {
  SEXTANT_CHECK(entries_.empty());
  for (auto& [key, graph] : graphs_) cudaGraphExecDestroy(graph.executable);
  graphs_.clear();
}

void Step::Add(const LaunchKey& key, std::vector<char> arguments, Launcher launcher) {
  SEXTANT_CHECK(collecting_);
  key_ += LaunchKey("").Add(key.bytes().size()).Add(arguments.size()).bytes();
  key_ += key.bytes();
  const int64_t offset = argument_bytes_;
  argument_bytes_ += RoundedUp(static_cast<int64_t>(arguments.size()));
  entries_.push_back({std::move(arguments), offset, std::move(launcher)});
}

absl::Status Step::LaunchAll(cudaStream_t stream, const char* arguments) const {
  for (const Entry& entry : entries_) {
    SEXTANT_RETURN_IF_ERROR(
        entry.launcher(stream, entry.arguments.empty() ? nullptr : arguments + entry.offset));
  }
  return absl::OkStatus();
}

absl::Status Step::FillArguments(ArgumentRing& ring, cudaStream_t stream) const {
  SEXTANT_ASSIGN_OR_RETURN(char* const staged, ring.Stage(argument_bytes_, stream));
  for (const Entry& entry : entries_) {
    if (!entry.arguments.empty()) {
      std::memcpy(staged + entry.offset, entry.arguments.data(), entry.arguments.size());
    }
  }
  return absl::OkStatus();
}

absl::Status Step::Capture(Allocator& allocator, cudaStream_t stream, Graph& graph) {
  SEXTANT_ASSIGN_OR_RETURN(graph.arguments, allocator.Allocate(argument_bytes_, Purpose::kArguments));
  SEXTANT_RETURN_IF_ERROR(
      ToStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing a step"));
  const absl::Status launched = LaunchAll(stream, static_cast<const char*>(graph.arguments.data()));
  cudaGraph_t captured = nullptr;
  const absl::Status ended = ToStatus(cudaStreamEndCapture(stream, &captured), "capturing a step");
  absl::Status made = launched.ok() ? ended : launched;
  if (made.ok())
    made = ToStatus(cudaGraphInstantiate(&graph.executable, captured, 0), "instantiating a step");
  // Also of a failed launch: another library may wait for the end of what was captured.
  if (captured != nullptr) cudaGraphDestroy(captured);
  return made;
}

void Step::DropOldest() {
  const auto oldest = std::min_element(graphs_.begin(), graphs_.end(), [](const auto& a, const auto& b) {
    return a.second.last_used < b.second.last_used;
  });
  cudaGraphExecDestroy(oldest->second.executable);
  graphs_.erase(oldest);
}

absl::Status Step::Flush(Allocator& allocator, ArgumentRing& ring, cudaStream_t stream) {
  if (entries_.empty()) return absl::OkStatus();
  const auto launch = [&]() -> absl::Status {
    auto known = graphs_.find(key_);
    if (known == graphs_.end() && seen_.contains(std::hash<std::string>()(key_))) {
      if (graphs_.size() >= kMostGraphs) DropOldest();
      Graph graph;
      SEXTANT_RETURN_IF_ERROR(Capture(allocator, stream, graph));
      known = graphs_.emplace(key_, std::move(graph)).first;
      ++counters_.captured;
    }
    SEXTANT_RETURN_IF_ERROR(FillArguments(ring, stream));
    if (known == graphs_.end()) {
      if (seen_.size() >= kMostSeen) seen_.clear();
      seen_.insert(std::hash<std::string>()(key_));
      ++counters_.plain;
      SEXTANT_ASSIGN_OR_RETURN(const char* const arguments, ring.Send(argument_bytes_, stream));
      return LaunchAll(stream, arguments);
    }
    Graph& graph = known->second;
    graph.last_used = ++clock_;
    ++counters_.replayed;
    SEXTANT_RETURN_IF_ERROR(ring.SendTo(graph.arguments.data(), argument_bytes_, stream));
    return ToStatus(cudaGraphLaunch(graph.executable, stream), "launching a step");
  };
  const absl::Status status = launch();
  entries_.clear();
  key_.clear();
  argument_bytes_ = 0;
  return status;
}

}  // namespace sextant::cuda
