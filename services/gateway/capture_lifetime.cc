// One capture from Open to Close, held by the call it was opened for.
#include "services/gateway/capture_lifetime.h"

#include <openssl/rand.h>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/log.h"
#include "common/rpc/channel.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "services/gateway/errors.h"
#include "services/gateway/peer_status.h"

namespace sextant {
namespace {

constexpr char kPrefix[] = "captures/";
constexpr size_t kIdBytes = 16;

std::string NewCaptureId() {
  std::string id(kIdBytes, '\0');
  SEXTANT_CHECK_EQ(RAND_bytes(reinterpret_cast<unsigned char*>(id.data()), static_cast<int>(id.size())), 1);
  return id;
}

}  // namespace

std::string CaptureName(const std::string& id) { return absl::StrCat(kPrefix, absl::BytesToHexString(id)); }

absl::StatusOr<std::string> CaptureIdOfName(const std::string& name) {
  absl::string_view digits = name;
  if (!absl::ConsumePrefix(&digits, kPrefix) || digits.size() != 2 * kIdBytes)
    return CaptureNameInvalid(name);
  for (const char c : digits) {
    if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) return CaptureNameInvalid(name);
  }
  return absl::HexStringToBytes(digits);
}

absl::StatusOr<std::unique_ptr<CaptureLifetime>> CaptureLifetime::Open(
    internal::v1::CaptureControlService::StubInterface& stub, const CapturePlan& plan,
    const CaptureOpening& opening, absl::Duration timeout) {
  auto capture = std::make_unique<CaptureLifetime>(stub, NewCaptureId(), opening.ids, timeout);
  internal::v1::OpenCaptureRequest request;
  request.set_capture(capture->id());
  request.set_engine(opening.engine);
  request.set_kind(plan.kind);
  *request.mutable_spec() = plan.spec;
  request.set_position_bytes(plan.position_bytes);
  request.set_reading_bytes(plan.reading_bytes);
  request.set_max_positions(plan.max_positions);
  request.set_ttl_seconds(plan.ttl_seconds);
  request.set_label(plan.label);
  request.set_model(opening.model);
  request.set_model_sha256(opening.model_sha256);
  request.mutable_prompt_token_ids()->Assign(opening.prompt_ids.begin(), opening.prompt_ids.end());
  request.set_request_id(opening.ids.request_id);
  request.set_trace_id(opening.ids.trace.trace_id);
  grpc::ClientContext context;
  SetTimeout(context, timeout);
  SetCallIds(context, opening.ids);
  internal::v1::OpenCaptureResponse response;
  // Should the answer get lost, `capture` closes what may have been opened.
  const grpc::Status answer = stub.OpenCapture(&context, request, &response);
  // The deadline is this gateway's, not the client's.
  if (answer.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED)
    return Unavailable("CAPTURE_UNREACHABLE", "the capture service does not answer; try again");
  SEXTANT_RETURN_IF_ERROR(StatusOfPeer(answer, Peer::kCapture));
  return capture;
}

CaptureLifetime::~CaptureLifetime() {
  if (left_) return;
  internal::v1::CloseCaptureRequest request;
  request.set_capture(id_);
  grpc::ClientContext context;
  SetTimeout(context, timeout_);
  SetCallIds(context, ids_);
  internal::v1::CloseCaptureResponse response;
  const grpc::Status status = stub_.CloseCapture(&context, request, &response);
  // Nothing is lost: without followers the capture service closes it by itself.
  if (!status.ok()) {
    LogWarning("capture not closed", {{"request_id", ids_.request_id},
                                      {"trace_id", ids_.trace.trace_id},
                                      {"capture", CaptureName(id_)},
                                      {"status", StatusOfPeer(status, Peer::kCapture)}});
  }
}

}  // namespace sextant
