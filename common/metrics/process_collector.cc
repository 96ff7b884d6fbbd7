// Metrics of the process itself, under the names every Prometheus client library uses.
#include "common/metrics/process_collector.h"

#include <dirent.h>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

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

struct Descriptors {
  int count = -1;                            // -1 if unknown
  absl::flat_hash_set<std::string> sockets;  // their inodes
};

Descriptors OpenDescriptors() {
  Descriptors found;
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return found;
  found.count = -3;  // ".", ".." and the folder itself
  while (const dirent* entry = readdir(folder)) {
    ++found.count;
    char target[64];
    const ssize_t bytes = readlinkat(dirfd(folder), entry->d_name, target, sizeof target);
    absl::string_view link(target, static_cast<size_t>(std::max<ssize_t>(bytes, 0)));
    if (absl::ConsumePrefix(&link, "socket:[") && absl::ConsumeSuffix(&link, "]"))
      found.sockets.emplace(link);
  }
  closedir(folder);
  return found;
}

// The connections that others made to the ports on which one of `sockets` listens.
int AcceptedConnections(const absl::flat_hash_set<std::string>& sockets) {
  absl::flat_hash_set<std::string> listening;
  std::vector<std::string> established;  // their local ports
  for (const char* table : {"/proc/self/net/tcp", "/proc/self/net/tcp6"}) {
    std::ifstream file(table);
    for (std::string line; std::getline(file, line);) {
      // proc(5): slot, local address:port, remote address:port, state, 5 more, inode.
      const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
      if (words.size() < 10 || !sockets.contains(words[9])) continue;
      const std::string port = words[1].substr(words[1].rfind(':') + 1);
      if (words[3] == "0A") listening.insert(port);
      if (words[3] == "01") established.push_back(port);
    }
  }
  return static_cast<int>(std::count_if(established.begin(), established.end(),
                                        [&](const std::string& port) { return listening.contains(port); }));
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
  // Resident memory breathes by pages and by what malloc keeps. This does not, but for what each thread's
  // cache holds, which malloc counts as in use.
  const struct mallinfo2 heap = mallinfo2();
  Append(families, "process_heap_bytes",
         "Memory in use by malloc's account, what its threads cache included.", MetricType::Gauge,
         static_cast<double>(heap.uordblks + heap.hblkhd));
  if (const Descriptors open = OpenDescriptors(); open.count >= 0) {
    Append(families, "process_open_fds", "Open file descriptors.", MetricType::Gauge, open.count);
    Append(families, "sextant_connections",
           "Connections open to this process's ports, the HTTP port included.", MetricType::Gauge,
           AcceptedConnections(open.sockets));
  }
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    Append(families, "process_max_fds", "Most file descriptors that may be open.", MetricType::Gauge,
           static_cast<double>(limit.rlim_cur));
  }
  return families;
}

}  // namespace sextant
