// Metrics of the process itself, under the names every Prometheus client library uses.
#include "common/metrics/process_collector.h"

#include <dirent.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "absl/container/flat_hash_set.h"
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

// The port at this end of a TCP socket.
int LocalPort(int fd) {
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

// What an option of SOL_SOCKET says; -1 if it has nothing to say: no socket, or closed meanwhile.
int SocketOption(int fd, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

bool HasPeer(int fd) {
  sockaddr_storage peer;
  socklen_t size = sizeof peer;
  return getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

struct Descriptors {
  int count = 0;
  int connections = 0;  // that others made to ports on which one of these listens
};

// Asks the descriptors themselves: /proc/self/net lists every socket of the network namespace, on a busy node
// a hundred thousand. Empty if they cannot be listed.
std::optional<Descriptors> OpenDescriptors() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return std::nullopt;
  Descriptors found;
  absl::flat_hash_set<int> listening;
  std::vector<int> connected;  // local ports
  while (const dirent* entry = readdir(folder)) {
    int fd = -1;
    if (!absl::SimpleAtoi(entry->d_name, &fd) || fd == dirfd(folder)) continue;
    ++found.count;
    if (SocketOption(fd, SO_PROTOCOL) != IPPROTO_TCP) continue;
    if (SocketOption(fd, SO_ACCEPTCONN) == 1) {
      listening.insert(LocalPort(fd));
    } else if (HasPeer(fd)) {
      connected.push_back(LocalPort(fd));
    }
  }
  closedir(folder);
  found.connections = static_cast<int>(
      std::count_if(connected.begin(), connected.end(), [&](int port) { return listening.contains(port); }));
  return found;
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
  if (const std::optional<Descriptors> open = OpenDescriptors(); open.has_value()) {
    Append(families, "process_open_fds", "Open file descriptors.", MetricType::Gauge, open->count);
    Append(families, "sextant_connections",
           "Connections open to this process's ports, the HTTP port included.", MetricType::Gauge,
           open->connections);
  }
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    Append(families, "process_max_fds", "Most file descriptors that may be open.", MetricType::Gauge,
           static_cast<double>(limit.rlim_cur));
  }
  return families;
}

}  // namespace sextant
