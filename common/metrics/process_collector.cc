// Metrics of the process itself, under the names every Prometheus client library uses.
#include "common/metrics/process_collector.h"

#include <dirent.h>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace sextant {
namespace {

void Append(std::vector<prometheus::MetricFamily>& families, const char* name, const char* help,
            prometheus::MetricType type, double value) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  family.metric.resize(1);
  family.metric[0].gauge.value = value;
  family.metric[0].counter.value = value;
  families.push_back(std::move(family));
}

std::string ReadFile(const char* path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

double Number(const std::string& text) {
  double value = 0;
  return absl::SimpleAtod(text, &value) ? value : 0;
}

// Seconds since the epoch at which the machine started; 0 if unknown.
double BootTime() {
  for (const auto& line : absl::StrSplit(ReadFile("/proc/stat"), '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() == 2 && words[0] == "btime") return Number(words[1]);
  }
  return 0;
}

// -1 if unknown.
int OpenDescriptors() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return -1;
  int count = 0;
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count - 3;  // ".", ".." and the folder itself
}

// The words of /proc/self/stat after the program's name, which may hold anything; empty if unreadable.
std::vector<std::string> StatWords() {
  const std::string stat = ReadFile("/proc/self/stat");
  const size_t end = stat.rfind(')');
  if (end == std::string::npos || end + 2 > stat.size()) return {};
  return absl::StrSplit(stat.substr(end + 2), ' ');
}

}  // namespace

std::vector<prometheus::MetricFamily> ProcessCollector::Collect() const {
  using prometheus::MetricType;
  std::vector<prometheus::MetricFamily> families;
  // proc(5) numbers these from 1 with the state as 3: utime 14, stime 15, threads 20, start 22, vsize 23,
  // rss 24.
  if (const std::vector<std::string> words = StatWords(); words.size() > 21) {
    const double tick = static_cast<double>(sysconf(_SC_CLK_TCK));
    Append(families, "process_cpu_seconds_total", "Processor time used, user and system.",
           MetricType::Counter, (Number(words[11]) + Number(words[12])) / tick);
    Append(families, "process_threads", "Threads.", MetricType::Gauge, Number(words[17]));
    Append(families, "process_start_time_seconds", "Start, seconds since the epoch.", MetricType::Gauge,
           BootTime() + Number(words[19]) / tick);
    Append(families, "process_virtual_memory_bytes", "Virtual memory.", MetricType::Gauge, Number(words[20]));
    Append(families, "process_resident_memory_bytes", "Resident memory.", MetricType::Gauge,
           Number(words[21]) * static_cast<double>(sysconf(_SC_PAGESIZE)));
  }
  // Resident memory breathes by pages and by what malloc keeps; this is what is in use, to the byte.
  const struct mallinfo2 heap = mallinfo2();
  Append(families, "process_heap_bytes", "Memory allocated and not freed, by malloc's account.",
         MetricType::Gauge, static_cast<double>(heap.uordblks + heap.hblkhd));
  if (const int count = OpenDescriptors(); count >= 0) {
    Append(families, "process_open_fds", "Open file descriptors.", MetricType::Gauge, count);
  }
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    Append(families, "process_max_fds", "Most file descriptors that may be open.", MetricType::Gauge,
           static_cast<double>(limit.rlim_cur));
  }
  return families;
}

}  // namespace sextant
