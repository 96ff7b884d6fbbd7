// Prints the machine's read bandwidth in GB/s (1e9) with as many threads as asked for: the denominator of
// decode.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "kernels/check.h"

namespace {

constexpr size_t kBytes = size_t{512} << 20;  // per thread, beyond any cache
constexpr int kRounds = 7;

// Sums 64-bit words with several chains, so that loads and not additions are the limit.
uint64_t Sum(const std::vector<uint64_t>& words) {
  uint64_t sums[16] = {};
  for (size_t i = 0; i + 16 <= words.size(); i += 16) {
    for (int j = 0; j < 16; ++j) sums[j] += words[i + j];
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  SEXTANT_CHECK(threads >= 1 && threads <= 1024);
  std::vector<std::vector<uint64_t>> data(threads, std::vector<uint64_t>(kBytes / 8, 1));
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<uint64_t> sums(threads);
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> running;
    for (int t = 0; t < threads; ++t) running.emplace_back([&, t] { sums[t] = Sum(data[t]); });
    for (std::thread& thread : running) thread.join();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (const uint64_t sum : sums) SEXTANT_CHECK_EQ(sum, kBytes / 8);
    best = std::max(best, threads * double(kBytes) / seconds / 1e9);
  }
  std::printf("%.2f\n", best);
  return 0;
}
