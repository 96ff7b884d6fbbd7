// Ports that nobody on the loopback uses, for processes that must be told theirs.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

namespace sextant {

// The first of `count` ports in a row that were all free a moment ago; the kernel chooses it.
inline int FreePorts(int count) {
  constexpr int kAttempts = 100;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    int first = 0;
    std::vector<int> sockets;
    bool free = true;
    for (int i = 0; i < count && free; ++i) {
      sockets.push_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      sockaddr_in address = {};
      address.sin_family = AF_INET;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      address.sin_port = htons(static_cast<uint16_t>(i == 0 ? 0 : first + i));
      socklen_t size = sizeof address;
      free = bind(sockets.back(), reinterpret_cast<sockaddr*>(&address), size) == 0 &&
             getsockname(sockets.back(), reinterpret_cast<sockaddr*>(&address), &size) == 0;
      if (i == 0) first = ntohs(address.sin_port);
    }
    for (const int each : sockets) close(each);
    if (free) return first;
  }
  ADD_FAILURE() << "no " << count << " free ports in a row";
  return 0;
}

}  // namespace sextant
