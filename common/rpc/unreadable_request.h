// Says what is wrong with requests whose bytes are no such message; gRPC answers INTERNAL without a word.
#pragma once

#include "grpcpp/support/server_interceptor.h"

namespace sextant {

// Makes interceptors that turn such an answer into INVALID_ARGUMENT / REQUEST_UNREADABLE. Handlers never see
// these requests, and their own errors always carry a message.
class UnreadableRequests final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override;
};

}  // namespace sextant
