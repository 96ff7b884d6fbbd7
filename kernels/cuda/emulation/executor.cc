// Runs one grid: its blocks one after another, the threads of a block as fibers that take turns at barriers
// and warp operations only.
#include "kernels/cuda/emulation/executor.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cuda/emulation/fiber.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) (static_cast<void>(address), static_cast<void>(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) (static_cast<void>(address), static_cast<void>(bytes))
#endif

constinit thread_local uint3 threadIdx{}, blockIdx{};
constinit thread_local dim3 blockDim{}, gridDim{};

namespace sextant::emulation {
namespace {

constexpr unsigned kWarp = 32;
constexpr size_t kStaticBytes = size_t{64} << 10, kStaticLimit = size_t{48} << 10, kStaticGap = 32;
constexpr size_t kDynamicBytes = size_t{256} << 10;
constexpr int kMeetings = 4;  // masks in use at once within a warp

// NaN in every float type, -1 as an index.
constexpr int kPoison = 0xff;

enum class State { kNew, kReady, kAtBarrier, kInWarp, kDone };

struct Thread {
  uint3 index{};
  Fiber* fiber = nullptr;
  State state = State::kNew;
  Site site{};
};

struct Meeting {
  unsigned mask = 0, arrived = 0, unread = 0;
  WarpOperation operation{};
  void (*finish)(const uint64_t*) = nullptr;
  // Two, because the next meeting fills up while the last one's values are still being read.
  int phase = 0;
  std::array<std::array<uint64_t, kWarp>, 2> values;

  uint64_t* current() { return values[static_cast<size_t>(phase & 1)].data(); }
};

struct Warp {
  unsigned alive = 0;  // lanes that have not returned
  unsigned rank = 0;   // rank 0 runs as far as it can before rank 1 does, ...
  // Lanes that may go on, as a ring.
  unsigned head = 0, tail = 0;
  std::array<unsigned, kWarp> ready{};
  std::array<Meeting, kMeetings> meetings;
};

void* Map(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) Fail("no memory for shared memory");
  return memory;
}

// One operating-system thread's; its fibers are kept from grid to grid.
class Executor {
 public:
  Executor() : dynamic_(Map(kDynamicBytes)), static_(static_cast<char*>(Map(kStaticBytes))) {}
  ~Executor() {
    ASAN_UNPOISON_MEMORY_REGION(dynamic_, kDynamicBytes);
    ASAN_UNPOISON_MEMORY_REGION(static_, kStaticBytes);
    munmap(dynamic_, kDynamicBytes);
    munmap(static_, kStaticBytes);
  }

  void Run(const Grid& grid, uint32_t seed);
  void Barrier(Site site);
  const uint64_t* Meet(unsigned mask, uint64_t value, WarpOperation operation, Site site,
                       void (*finish)(const uint64_t*));
  unsigned lane() const { return current_ % kWarp; }
  void* dynamic_shared() const { return dynamic_; }
  void* StaticShared(const void* key, size_t bytes, size_t alignment);

  // Body of every fiber: takes one new thread after the other. A thread that waits keeps its fiber.
  [[noreturn]] void TakeThreads();

 private:
  void Prepare(const Grid& grid);
  void Order(uint32_t seed);
  void RunBlock();
  void RunThread(unsigned index, Fiber* fiber);
  Fiber* IdleFiber();
  // Leaves the running fiber for one that can go on; returns when something resumes it.
  void Leave(Fiber* self);
  void Wait(unsigned index);
  void Wake(unsigned index);
  Meeting& FindMeeting(Warp& warp, unsigned mask, Site site);
  void FinishMeeting(unsigned warp_index, Meeting& meeting);

  Fiber main_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  Fiber* entering_ = nullptr;

  const Grid* grid_ = nullptr;
  std::mt19937 random_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<unsigned> order_;         // threads, in the order they start
  std::vector<unsigned> warp_of_rank_;  // inverse of Warp::rank
  unsigned ready_ranks_ = 0;            // bit r: the warp of rank r has a lane that may go on
  unsigned count_ = 0, started_ = 0, done_ = 0, current_ = 0;

  unsigned at_barrier_ = 0;
  Site barrier_site_{};

  void* const dynamic_;
  char* const static_;
  size_t static_used_ = 0;   // with gaps
  size_t static_bytes_ = 0;  // as a device lays them out
  std::vector<std::pair<const void*, void*>> static_variables_;
};

Executor& TheExecutor() {
  thread_local Executor executor;
  return executor;
}

[[noreturn]] void EnterFiber() {
  Fiber::Arrived();
  TheExecutor().TakeThreads();
}

void Executor::Prepare(const Grid& grid) {
  grid_ = &grid;
  count_ = grid.block.x * grid.block.y * grid.block.z;
  threads_.assign(count_, Thread{});
  warps_.resize((count_ + kWarp - 1) / kWarp);
  order_.resize(count_);
  warp_of_rank_.resize(warps_.size());
  for (unsigned i = 0; i < count_; ++i) {
    threads_[i].index = {i % grid.block.x, i / grid.block.x % grid.block.y, i / grid.block.x / grid.block.y};
  }
  blockDim = grid.block;
  gridDim = grid.grid;
  ASAN_POISON_MEMORY_REGION(dynamic_, kDynamicBytes);
  ASAN_UNPOISON_MEMORY_REGION(dynamic_, grid.shared_bytes);
}

void Executor::Order(uint32_t seed) {
  for (unsigned i = 0; i < warps_.size(); ++i) warp_of_rank_[i] = i;
  if (seed != 0) std::shuffle(warp_of_rank_.begin(), warp_of_rank_.end(), random_);
  auto next = order_.begin();
  for (unsigned rank = 0; rank < warps_.size(); ++rank) {
    const unsigned warp = warp_of_rank_[rank];
    warps_[warp].rank = rank;
    const auto first = next;
    for (unsigned i = warp * kWarp; i < std::min(count_, (warp + 1) * kWarp); ++i) *next++ = i;
    if (seed != 0) std::shuffle(first, next, random_);
  }
}

void Executor::Run(const Grid& grid, uint32_t seed) {
  Prepare(grid);
  random_.seed(seed);
  const uint64_t blocks = uint64_t{grid.grid.x} * grid.grid.y * grid.grid.z;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t shifted = (i + seed) % blocks;
    const uint64_t block = seed % 2 == 1 ? blocks - 1 - shifted : shifted;
    blockIdx = {static_cast<unsigned>(block % grid.grid.x),
                static_cast<unsigned>(block / grid.grid.x % grid.grid.y),
                static_cast<unsigned>(block / grid.grid.x / grid.grid.y)};
    Order(seed);
    RunBlock();
  }
}

void Executor::RunBlock() {
  started_ = done_ = ready_ranks_ = at_barrier_ = 0;
  for (unsigned i = 0; i < warps_.size(); ++i) {
    const unsigned lanes = std::min(kWarp, count_ - i * kWarp);
    warps_[i].alive = lanes == kWarp ? ~0u : (1u << lanes) - 1;
    warps_[i].head = warps_[i].tail = 0;
    for (Meeting& meeting : warps_[i].meetings) meeting.mask = meeting.arrived = meeting.unread = 0;
  }
  for (Thread& thread : threads_) thread.state = State::kNew;
  std::memset(dynamic_, kPoison, grid_->shared_bytes);
  static_variables_.clear();
  static_used_ = static_bytes_ = 0;
  ASAN_POISON_MEMORY_REGION(static_, kStaticBytes);

  entering_ = IdleFiber();
  Fiber::Switch(main_, *entering_);
  for (const Thread& thread : threads_) {
    if (thread.state == State::kDone) continue;
    Fail("deadlock: thread (%u,%u,%u) of block (%u,%u,%u) waits for ever in a %s at %s:%u", thread.index.x,
         thread.index.y, thread.index.z, blockIdx.x, blockIdx.y, blockIdx.z,
         thread.state == State::kInWarp ? "warp operation" : "barrier", thread.site.file_name(),
         thread.site.line());
  }
}

Fiber* Executor::IdleFiber() {
  if (idle_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(EnterFiber));
    return fibers_.back().get();
  }
  Fiber* fiber = idle_.back();
  idle_.pop_back();
  return fiber;
}

void Executor::TakeThreads() {
  Fiber* const self = entering_;
  for (;;) {
    // Threads that can go on come before new ones.
    while (started_ < count_ && ready_ranks_ == 0) RunThread(order_[started_++], self);
    idle_.push_back(self);
    Leave(self);
  }
}

void Executor::RunThread(unsigned index, Fiber* fiber) {
  Thread& thread = threads_[index];
  thread.fiber = fiber;
  current_ = index;
  threadIdx = thread.index;
  grid_->body();
  thread.state = State::kDone;
  ++done_;
  if (at_barrier_ > 0) {
    Fail("divergent barrier: thread (%u,%u,%u) of block (%u,%u,%u) returned while %u threads wait at %s:%u",
         thread.index.x, thread.index.y, thread.index.z, blockIdx.x, blockIdx.y, blockIdx.z, at_barrier_,
         barrier_site_.file_name(), barrier_site_.line());
  }
  Warp& warp = warps_[index / kWarp];
  warp.alive &= ~(1u << (index % kWarp));
  for (Meeting& meeting : warp.meetings) {
    if (meeting.arrived != 0 && meeting.arrived == (meeting.mask & warp.alive)) {
      FinishMeeting(index / kWarp, meeting);
    }
  }
}

void Executor::Leave(Fiber* self) {
  Fiber* to = &main_;
  if (ready_ranks_ != 0) {
    const unsigned index = warp_of_rank_[static_cast<size_t>(__builtin_ctz(ready_ranks_))];
    Warp& warp = warps_[index];
    current_ = index * kWarp + warp.ready[warp.head++ % kWarp];
    if (warp.head == warp.tail) ready_ranks_ &= ~(1u << warp.rank);
    to = threads_[current_].fiber;
  } else if (started_ < count_) {
    to = entering_ = IdleFiber();
  }
  if (to != self) Fiber::Switch(*self, *to);
}

void Executor::Wait(unsigned index) {
  Leave(threads_[index].fiber);
  current_ = index;
  threadIdx = threads_[index].index;
}

void Executor::Wake(unsigned index) {
  threads_[index].state = State::kReady;
  Warp& warp = warps_[index / kWarp];
  warp.ready[warp.tail++ % kWarp] = index % kWarp;
  ready_ranks_ |= 1u << warp.rank;
}

void Executor::Barrier(Site site) {
  if (done_ > 0) {
    Fail("divergent barrier at %s:%u: %u threads of block (%u,%u,%u) have returned", site.file_name(),
         site.line(), done_, blockIdx.x, blockIdx.y, blockIdx.z);
  }
  if (at_barrier_ > 0 && (site.line() != barrier_site_.line() || site.column() != barrier_site_.column())) {
    Fail("divergent barrier in block (%u,%u,%u): thread (%u,%u,%u) is at %s:%u, others wait at %s:%u",
         blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, site.file_name(),
         site.line(), barrier_site_.file_name(), barrier_site_.line());
  }
  barrier_site_ = site;
  const unsigned self = current_;
  threads_[self].state = State::kAtBarrier;
  threads_[self].site = site;
  if (++at_barrier_ == count_) {
    at_barrier_ = 0;
    for (const unsigned index : order_) Wake(index);
  }
  Wait(self);
}

Meeting& Executor::FindMeeting(Warp& warp, unsigned mask, Site site) {
  for (Meeting& meeting : warp.meetings) {
    if (meeting.mask == mask) return meeting;
  }
  for (Meeting& meeting : warp.meetings) {
    if (meeting.arrived != 0 || meeting.unread != 0) continue;
    std::memset(&meeting.values, kPoison, sizeof meeting.values);
    meeting.mask = mask;
    return meeting;
  }
  Fail("%s:%u: more than %d masks are in use at once in a warp", site.file_name(), site.line(), kMeetings);
}

void Executor::FinishMeeting(unsigned warp_index, Meeting& meeting) {
  if (meeting.finish != nullptr) meeting.finish(meeting.current());
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const unsigned index = warp_index * kWarp + lane;
    if (((meeting.arrived >> lane) & 1u) != 0 && threads_[index].state == State::kInWarp) Wake(index);
  }
  meeting.unread = static_cast<unsigned>(__builtin_popcount(meeting.arrived));
  meeting.arrived = 0;
  ++meeting.phase;
  std::memset(meeting.current(), kPoison, sizeof meeting.values[0]);
}

const uint64_t* Executor::Meet(unsigned mask, uint64_t value, WarpOperation operation, Site site,
                               void (*finish)(const uint64_t*)) {
  const unsigned self = current_;
  if (((mask >> lane()) & 1u) == 0) {
    Fail("%s:%u: lane %u is not in its own mask %08x", site.file_name(), site.line(), lane(), mask);
  }
  Warp& warp = warps_[self / kWarp];
  Meeting& meeting = FindMeeting(warp, mask, site);
  if (meeting.arrived != 0 && meeting.operation != operation) {
    Fail("%s:%u: lanes of a warp meet in different warp operations", site.file_name(), site.line());
  }
  meeting.operation = operation;
  meeting.finish = finish;
  uint64_t* const values = meeting.current();
  values[lane()] = value;
  meeting.arrived |= 1u << lane();
  if (meeting.arrived == (mask & warp.alive)) {
    FinishMeeting(self / kWarp, meeting);
  } else {
    threads_[self].state = State::kInWarp;
    threads_[self].site = site;
    Wait(self);
  }
  // The caller takes its values before another fiber runs.
  --meeting.unread;
  return values;
}

void* Executor::StaticShared(const void* key, size_t bytes, size_t alignment) {
  for (const auto& [known, memory] : static_variables_) {
    if (known == key) return memory;
  }
  static_bytes_ = (static_bytes_ + alignment - 1) / alignment * alignment + bytes;
  if (static_bytes_ > kStaticLimit) Fail("more than %zu bytes of static shared memory", kStaticLimit);
  if (static_bytes_ + grid_->shared_bytes > grid_->shared_limit) {
    Fail("%zu bytes of static and %zu of dynamic shared memory are more than %zu", static_bytes_,
         grid_->shared_bytes, grid_->shared_limit);
  }
  const size_t align = std::max<size_t>(alignment, 16);
  const size_t start = (static_used_ + kStaticGap + align - 1) / align * align;
  if (start + bytes > kStaticBytes) Fail("too many shared variables");
  char* memory = static_ + start;
  static_used_ = start + bytes;
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
  std::memset(memory, kPoison, bytes);
  static_variables_.emplace_back(key, memory);
  return memory;
}

}  // namespace

void Fail(const char* format, ...) {
  std::fputs("cuda emulation: ", stderr);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  std::abort();
}

void Barrier(Site site) { TheExecutor().Barrier(site); }
const uint64_t* Meet(unsigned mask, uint64_t value, WarpOperation operation, Site site,
                     void (*finish)(const uint64_t*)) {
  return TheExecutor().Meet(mask, value, operation, site, finish);
}
unsigned Lane() { return TheExecutor().lane(); }
void* StaticShared(const void* key, size_t bytes, size_t alignment) {
  return TheExecutor().StaticShared(key, bytes, alignment);
}
void* DynamicShared() { return TheExecutor().dynamic_shared(); }
void RunGrid(const Grid& grid, uint32_t seed) { TheExecutor().Run(grid, seed); }

}  // namespace sextant::emulation
