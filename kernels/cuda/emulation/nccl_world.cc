// Makes and maps the memory of emulated NCCL communicators.
#include "kernels/cuda/emulation/nccl_world.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <utility>

namespace sextant::emulation {
namespace {

constexpr int64_t kHeaderBytes = 64 << 10;
static_assert(sizeof(NcclHeader) <= kHeaderBytes);
constexpr int64_t kBytes = kHeaderBytes + (2 + kNcclMaxRanks) * kNcclMaxRanks * kNcclSlotBytes;

void* Map(int fd) {
  if (fd < 0) return nullptr;
  void* memory = MAP_FAILED;
  if (ftruncate(fd, kBytes) == 0)
    memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  close(fd);
  return memory == MAP_FAILED ? nullptr : memory;
}

}  // namespace

NcclWorld::NcclWorld(std::string name, void* memory)
    : name_(std::move(name)), header_(static_cast<NcclHeader*>(memory)) {}

NcclWorld::~NcclWorld() { munmap(header_, kBytes); }

std::unique_ptr<NcclWorld> NcclWorld::Create(const std::string& name) {
  void* const memory = Map(shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  return memory == nullptr ? nullptr : std::unique_ptr<NcclWorld>(new NcclWorld(name, memory));
}

std::unique_ptr<NcclWorld> NcclWorld::Open(const std::string& name) {
  void* const memory = Map(shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0));
  return memory == nullptr ? nullptr : std::unique_ptr<NcclWorld>(new NcclWorld(name, memory));
}

void NcclWorld::RemoveName() const { shm_unlink(name_.c_str()); }

char* NcclWorld::Part(int index) const {
  return reinterpret_cast<char*>(header_) + kHeaderBytes + index * kNcclSlotBytes;
}

}  // namespace sextant::emulation
