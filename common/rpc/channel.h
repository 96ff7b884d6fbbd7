// Channels to other services, made the one way all services make them.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"

namespace sextant {

struct ChannelOptions {
  // Largest message that is received.
  int max_receive_bytes = 16 << 20;
  // Share no connection with other channels of this process (streams that must not slow each other down).
  bool own_connection = false;
};

// A channel to "host:port". Connects when first used, notices a vanished peer within about 15 s by keepalive
// (10 s idle, 5 s for the answer), reconnects with a backoff of 0.2 to 1 s, and never goes through an HTTP
// proxy.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const ChannelOptions& options = {});

// Sets the call's deadline to now + `timeout`.
void SetTimeout(grpc::ClientContext& context, absl::Duration timeout);

}  // namespace sextant
