// Ends a rank that does not come to serve.
#include "services/shard_worker/load_deadline.h"

#include <unistd.h>

#include "common/base/log.h"

namespace sextant {

LoadDeadline::LoadDeadline(absl::Duration time)
    : watch_([this, time] {
        if (met_.WaitForNotificationWithTimeout(time)) return;
        LogError("not loaded in time; the disk may be slow or gone: see --load_deadline",
                 {{"load_deadline", absl::FormatDuration(time)}});
        _exit(1);
      }) {}

LoadDeadline::~LoadDeadline() {
  if (!met_.HasBeenNotified()) met_.Notify();
  watch_.join();
}

}  // namespace sextant
