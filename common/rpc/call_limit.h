// A time limit on a call that a slow peer could otherwise hold open for ever.
#pragma once

#include <memory>

#include "absl/time/time.h"
#include "grpcpp/alarm.h"
#include "grpcpp/server_context.h"

namespace sextant {

// Cancels the call after `limit` unless destroyed first; blocked reads and writes of the handler then fail.
// Made and destroyed by the handler. REQUIRES: `context` outlives it.
class CallLimit {
 public:
  CallLimit(grpc::ServerContextBase& context, absl::Duration limit);
  ~CallLimit();
  CallLimit(const CallLimit&) = delete;
  CallLimit& operator=(const CallLimit&) = delete;

 private:
  struct State;
  // Shared with the alarm, which may go off while the call ends.
  const std::shared_ptr<State> state_;
  grpc::Alarm alarm_;
};

}  // namespace sextant
