// A capture service for tests of decoders: plays a script to each connection.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "common/activation/readings.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/sync_stream.h"
#include "gtest/gtest.h"
#include "services/lens_decoder/lease.h"
#include "sextant/internal/v1/capture.grpc.pb.h"

namespace sextant {

using PullStream = grpc::ServerReaderWriter<internal::v1::DecoderReply, internal::v1::DecoderMessage>;

// One connection from the capture service's side.
class Connection {
 public:
  explicit Connection(PullStream& stream) : stream_(stream) {}

  // Takes the hello and what is wanted, and greets.
  void Greet() {
    internal::v1::DecoderMessage message;
    ASSERT_TRUE(stream_.Read(&message));
    hello = message.hello();
    ASSERT_TRUE(stream_.Read(&message));
    want_bytes = message.want().bytes();
    internal::v1::DecoderReply reply;
    reply.mutable_hello()->set_instance("test");
    ASSERT_TRUE(stream_.Write(reply));
  }

  void SendLease(const Lease& lease) {
    internal::v1::DecoderReply reply;
    reply.mutable_lease()->set_lease(lease.id);
    reply.mutable_lease()->set_capture(lease.capture);
    *reply.mutable_lease()->mutable_spec() = lease.spec;
    *reply.mutable_lease()->mutable_positions() = {lease.positions.begin(), lease.positions.end()};
    *reply.mutable_lease()->mutable_target_ids() = {lease.target_ids.begin(), lease.target_ids.end()};
    reply.mutable_lease()->set_data_bytes(static_cast<int64_t>(lease.data.size()));
    stream_.Write(reply);
    const size_t half = lease.data.size() / 2;
    reply.mutable_data()->set_lease(lease.id);
    reply.mutable_data()->set_data(lease.data.substr(0, half));
    stream_.Write(reply);
    reply.mutable_data()->set_data(lease.data.substr(half));
    reply.mutable_data()->set_last(true);
    stream_.Write(reply);
  }

  // Takes messages until `until` says so or the decoder ends the stream.
  void Take(const std::function<bool()>& until) {
    internal::v1::DecoderMessage message;
    while (!until() && stream_.Read(&message)) {
      if (message.has_result())
        AppendReadings(message.result().readings(), results[message.result().lease()]);
      if (message.has_release()) {
        released.insert(message.release().lease());
        if (want_bytes == 0) released_on_leaving.insert(message.release().lease());
      }
      if (message.has_want()) want_bytes = message.want().bytes();
    }
  }
  void TakeUntilEnd() {
    Take([] { return false; });
  }

  internal::v1::DecoderHello hello;
  int64_t want_bytes = -1;
  std::map<int64_t, v1::Readings> results;
  std::set<int64_t> released, released_on_leaving;

 private:
  PullStream& stream_;
};

// Plays `script` to each connection; its number counts from 0.
class ScriptedCapture final : public internal::v1::LensStreamService::Service {
 public:
  using Script = std::function<grpc::Status(int number, Connection& connection)>;
  explicit ScriptedCapture(Script script) : script_(std::move(script)) {}
  grpc::Status Pull(grpc::ServerContext*, PullStream* stream) override {
    Connection connection(*stream);
    return script_(count_++, connection);
  }

 private:
  const Script script_;
  std::atomic<int> count_{0};
};

}  // namespace sextant
