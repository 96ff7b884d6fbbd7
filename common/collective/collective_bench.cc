// Measures the all-reduce between two processes and a plan's way to a rank.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "absl/time/clock.h"
#include "common/collective/shm_communicator.h"
#include "common/collective/shm_plan_channel.h"
#include "kernels/cpu/backend.h"

namespace sextant {
namespace {

constexpr absl::Duration kLong = absl::Seconds(30);

void Print(const char* what, std::vector<double>& micros) {
  std::sort(micros.begin(), micros.end());
  double sum = 0;
  for (const double value : micros) sum += value;
  std::printf("%-28s mean %8.2f  p50 %8.2f  p99 %8.2f us\n", what, sum / micros.size(),
              micros[micros.size() / 2], micros[micros.size() * 99 / 100]);
}

void MeasureAllReduce(GroupMemory& memory, int rank) {
  const auto backend = *MakeCpuBackend({});
  const auto stream = *backend->CreateStream();
  ShmCommunicator communicator(*backend, memory, rank, kLong);
  for (const int64_t count : {576, 8192, 262144, 294912}) {
    std::vector<float> x(count, 1.f);
    std::vector<double> micros;
    const int repeats = count > 10000 ? 300 : 5000;
    for (int i = 0; i < repeats; ++i) {
      const absl::Time start = absl::Now();
      communicator.AllReduceSum(*stream, Tensor::Of(x.data(), DType::kF32, 1, count));
      SEXTANT_CHECK(backend->Synchronize(*stream).ok());
      micros.push_back(absl::ToDoubleMicroseconds(absl::Now() - start));
      x.assign(count, 1.f);
    }
    char what[64];
    std::snprintf(what, sizeof what, "all-reduce, %ld floats", count);
    if (rank == 0) Print(what, micros);
  }
}

// There and back: the follower reports what it received.
void MeasurePlans(GroupMemory& memory, int rank) {
  ShmPlanChannel channel(memory, rank);
  const std::string plan(300, 'p');
  std::vector<double> micros;
  for (int i = 1; i <= 5000; ++i) {
    if (rank == 1) {
      SEXTANT_CHECK(channel.Receive(kLong).ok());
      channel.Report(ReportWord::kReleasedSlots, i);
      continue;
    }
    const absl::Time start = absl::Now();
    SEXTANT_CHECK(channel.Broadcast(plan, kLong).ok());
    while (channel.Reported(1, ReportWord::kReleasedSlots) != i) {
    }
    micros.push_back(absl::ToDoubleMicroseconds(absl::Now() - start));
  }
  if (rank == 0) Print("plan and report, 300 bytes", micros);
}

}  // namespace
}  // namespace sextant

int main() {
  const auto memory = *sextant::GroupMemory::Create(2);
  const pid_t child = fork();
  const int rank = child == 0 ? 1 : 0;
  sextant::MeasureAllReduce(*memory, rank);
  sextant::MeasurePlans(*memory, rank);
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  return 0;
}
