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
constexpr size_t kMostSeen = 4096;
constexpr size_t kMostUncapturable = 256;
constexpr int64_t kLeastBlock = int64_t{16} << 10;

}  // namespace

int64_t Step::RoundedUp(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

Step::~Step() { Forget(); }

void Step::Forget() {
  SEXTANT_CHECK(entries_.empty());
  while (!graphs_.empty()) Drop(graphs_.begin());
  uncapturable_.clear();
}

void Step::Add(const LaunchKey& key, std::vector<char> arguments, Launcher launcher, StepPeers* peers) {
  SEXTANT_CHECK(collecting_);
  if (peers != nullptr) peers_ = peers;
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

absl::StatusOr<Buffer> Step::ArgumentBlock(Allocator& allocator) {
  int64_t bytes = kLeastBlock;
  while (bytes < argument_bytes_) bytes *= 2;
  const auto block = std::find_if(free_blocks_.begin(), free_blocks_.end(),
                                  [bytes](const Buffer& free) { return free.bytes() == bytes; });
  if (block == free_blocks_.end()) return allocator.Allocate(bytes, Purpose::kArguments);
  Buffer taken = std::move(*block);
  free_blocks_.erase(block);
  return taken;
}

absl::Status Step::Capture(Allocator& allocator, cudaStream_t stream, Graph& graph) {
  bool begun = false;
  const auto queue = [&]() -> absl::Status {
    begun = true;
    // Before the first call that would be captured here alone.
    SEXTANT_RETURN_IF_ERROR(PeersCapture(true));
    return LaunchAll(stream, static_cast<const char*>(graph.arguments.data()));
  };
  const auto capture = [&]() -> absl::Status {
    SEXTANT_ASSIGN_OR_RETURN(graph.arguments, ArgumentBlock(allocator));
    SEXTANT_ASSIGN_OR_RETURN(graph.executable, CaptureGraph(stream, "a step", queue));
    return absl::OkStatus();
  };
  const absl::Status captured = capture();
  // The others ask all the same; an error of the group shows with the next question.
  if (!begun) PeersCapture(false).IgnoreError();
  return captured;
}

absl::Status Step::PeersCapture(bool self) {
  if (peers_ == nullptr) return absl::OkStatus();
  SEXTANT_ASSIGN_OR_RETURN(const StepPeers::Answer answer, peers_->Compare(self ? 1 : 0));
  return answer.least == 0 ? absl::FailedPreconditionError("a peer cannot capture the step")
                           : absl::OkStatus();
}

void Step::Drop(absl::flat_hash_map<std::string, Graph>::iterator graph) {
  free_blocks_.push_back(std::move(graph->second.arguments));
  graphs_.erase(graph);
}

void Step::Keep(Graph graph) {
  if (const auto own = graphs_.find(key_); own != graphs_.end()) {
    Drop(own);
  } else if (static_cast<int32_t>(graphs_.size()) >= most_graphs_) {
    Drop(std::min_element(graphs_.begin(), graphs_.end(), [](const auto& a, const auto& b) {
      return a.second.last_used < b.second.last_used;
    }));
  }
  graphs_.emplace(key_, std::move(graph));
}

absl::StatusOr<Step::Way> Step::Choose(bool whole) {
  // What a peer can do, in one number: launch plainly, capture, or replay graph number n, as n + 1.
  constexpr int32_t kPlain = 0, kCapture = 1;
  const auto known = graphs_.find(key_);
  const size_t hash = std::hash<std::string>()(key_);
  const bool seen = known != graphs_.end() || (seen_.contains(hash) && !uncapturable_.contains(hash));
  if (peers_ == nullptr) return known != graphs_.end() ? Way::kReplay : seen ? Way::kCapture : Way::kPlain;
  // Peers may cut their steps elsewhere, or not at all: a step of several parts is launched plainly by all.
  if (asked_) return Way::kPlain;
  asked_ = true;
  const int32_t own = !whole || !seen ? kPlain : known == graphs_.end() ? kCapture : known->second.number + 1;
  SEXTANT_ASSIGN_OR_RETURN(const StepPeers::Answer answer, peers_->Compare(own));
  if (answer.least == kPlain) return Way::kPlain;
  if (answer.least == kCapture) return Way::kCapture;
  // Everybody has a graph. If they were captured with other lists of the peers, those come again as well, and
  // capturing anew would take turns for ever.
  return answer.same ? Way::kReplay : Way::kPlain;
}

absl::StatusOr<bool> Step::MakeGraph(Allocator& allocator, cudaStream_t stream) {
  Graph graph;
  // An error that lasts shows with the next launch.
  bool made = Capture(allocator, stream, graph).ok();
  if (peers_ != nullptr) {
    SEXTANT_ASSIGN_OR_RETURN(const StepPeers::Answer answer, peers_->Compare(made ? 1 : 0));
    made = answer.least != 0;
  }
  if (!made) {
    ++counters_.failed;
    if (uncapturable_.size() >= kMostUncapturable) uncapturable_.clear();
    uncapturable_.insert(std::hash<std::string>()(key_));
    if (graph.arguments.data() != nullptr) free_blocks_.push_back(std::move(graph.arguments));
    return false;
  }
  if (peers_ != nullptr) {
    last_number_ = last_number_ % (StepPeers::kMostValue - 2) + 1;
    graph.number = last_number_;
  }
  ++counters_.captured;
  Keep(std::move(graph));
  return true;
}

absl::Status Step::Launch(Allocator& allocator, ArgumentRing& ring, cudaStream_t stream, bool whole) {
  SEXTANT_ASSIGN_OR_RETURN(Way way, Choose(whole));
  if (way == Way::kCapture) {
    SEXTANT_ASSIGN_OR_RETURN(const bool made, MakeGraph(allocator, stream));
    way = made ? Way::kReplay : Way::kPlain;
  }
  SEXTANT_RETURN_IF_ERROR(FillArguments(ring, stream));
  if (way == Way::kPlain) {
    if (seen_.size() >= kMostSeen) seen_.clear();
    seen_.insert(std::hash<std::string>()(key_));
    ++counters_.plain;
    SEXTANT_ASSIGN_OR_RETURN(const char* const arguments, ring.Send(argument_bytes_, stream));
    return LaunchAll(stream, arguments);
  }
  Graph& graph = graphs_.find(key_)->second;
  graph.last_used = ++clock_;
  ++counters_.replayed;
  SEXTANT_RETURN_IF_ERROR(ring.SendTo(graph.arguments.data(), argument_bytes_, stream));
  return ToStatus(cudaGraphLaunch(graph.executable.get(), stream), "launching a step");
}

absl::Status Step::Flush(Allocator& allocator, ArgumentRing& ring, cudaStream_t stream, bool whole) {
  if (entries_.empty()) return absl::OkStatus();
  const absl::Status status = Launch(allocator, ring, stream, whole);
  entries_.clear();
  key_.clear();
  argument_bytes_ = 0;
  peers_ = nullptr;
  return status;
}

}  // namespace sextant::cuda
