// A thread that exchanges frames with some peers over TCP, and notices when one of them is gone.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/collective/frame.h"
#include "common/collective/tcp_socket.h"

namespace sextant {

struct FrameLinkOptions {
  // A peer gets a frame at least this often.
  absl::Duration heartbeat = absl::Milliseconds(250);
  // One from which nothing came for so long is lost: its machine stopped, or the network is cut.
  absl::Duration silence = absl::Seconds(5);
};

struct FrameLinkEvents {
  // A frame of a peer; an error loses the peer.
  std::function<absl::Status(int peer, const Frame& frame)> on_frame;
  // A peer is gone, once for each Add.
  std::function<void(int peer, const absl::Status& why)> on_lost;
};

// Threads: all methods from any thread; events come from the link's own thread, which holds no lock then.
class FrameLink {
 public:
  FrameLink(FrameLinkOptions options, FrameLinkEvents events);
  // Closes every connection, without on_lost.
  ~FrameLink();

  // From now on `socket` is the way to `peer`; an earlier one is closed without on_lost.
  void Add(int peer, TcpSocket socket);
  // Closes the way to `peer`, if any, without on_lost.
  void Remove(int peer);

  // Queues a frame; it is dropped when the peer is not there. The caller bounds how many wait.
  void Send(int peer, std::shared_ptr<const std::string> frame);
  // Sends the newest frame of each `slot`: one that still waits is replaced. After all of Send's.
  void SendLatest(int peer, int slot, std::string frame);

  // Waits until everything for every peer was handed to the system. False at the deadline.
  bool Flush(absl::Time deadline);

 private:
  struct Peer {
    TcpSocket socket;
    int64_t generation = 0;
    FrameParser parser;  // of the link's thread
    std::deque<std::shared_ptr<const std::string>> queue;
    std::map<int, std::string> latest;
    std::shared_ptr<const std::string> sending;  // of which `sent` bytes are out
    size_t sent = 0;
    absl::Time last_sent, last_received;
  };
  // What poll() is asked about.
  struct Watched {
    int peer;
    int64_t generation;
    int fd;
  };

  void Run();
  void Wake();
  bool HasWork(const Peer& peer) const;
  // Writes what the socket takes.
  absl::Status Write(Peer& peer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Read(const Watched& watched);
  absl::Status Serve(const Watched& watched, bool readable, absl::Time now);
  void Lose(const Watched& watched, const absl::Status& why);

  const FrameLinkOptions options_;
  const FrameLinkEvents events_;
  const int wake_fd_;
  absl::Mutex mutex_;
  absl::CondVar flushed_;
  std::map<int, Peer> peers_ ABSL_GUARDED_BY(mutex_);
  int64_t next_generation_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace sextant
