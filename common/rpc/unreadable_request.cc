// Says what is wrong with requests whose bytes are no such message; gRPC answers INTERNAL without a word.
#include "common/rpc/unreadable_request.h"

#include "common/base/error.h"
#include "common/rpc/status.h"

namespace sextant {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::InterceptorBatchMethods;

class Explain final : public grpc::experimental::Interceptor {
 public:
  void Intercept(InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = batch->GetSendStatus();
      if (status.error_code() == grpc::StatusCode::INTERNAL && status.error_message().empty()) {
        batch->ModifySendStatus(ToGrpcStatus(
            MakeError(absl::StatusCode::kInvalidArgument, "REQUEST_UNREADABLE",
                      "the request's bytes are no message of this method; texts must be valid UTF-8")));
      }
    }
    batch->Proceed();
  }
};

}  // namespace

grpc::experimental::Interceptor* UnreadableRequests::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo*) {
  return new Explain;  // gRPC owns it.
}

}  // namespace sextant
