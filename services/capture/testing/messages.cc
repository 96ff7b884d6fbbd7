// Makers of well-formed messages for tests of the capture service.
#include "services/capture/testing/messages.h"

#include <zlib.h>

namespace sextant::testing {
namespace {

void AppendFloat(float value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}
void AppendInt(int32_t value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

CaptureId TestId(int number) {
  std::string bytes(CaptureId::kBytes, '\0');
  bytes[0] = static_cast<char>(number);
  bytes[1] = static_cast<char>(number >> 8);
  return *CaptureId::FromBytes(bytes);
}

std::string TestDigest() { return std::string(32, 'd'); }

internal::v1::CaptureSpec TestSpec() {
  internal::v1::CaptureSpec spec;
  const auto add = [&spec](sextant::v1::Site site, int layer) {
    auto* row = spec.add_rows();
    row->set_site(site);
    row->set_layer(layer);
  };
  add(sextant::v1::SITE_ATTN_OUT, 0);
  add(sextant::v1::SITE_RESID_POST, 0);
  add(sextant::v1::SITE_RESID_POST, 1);
  spec.set_dtype(sextant::v1::DTYPE_F32);
  spec.set_hidden_size(2);
  auto* lens = spec.mutable_lens();
  lens->add_row_indices(1);
  lens->add_row_indices(2);
  lens->set_final_row_index(2);
  lens->set_top_k(2);
  lens->set_lens_digest(TestDigest());
  return spec;
}

internal::v1::OpenCaptureRequest TestOpen(const CaptureId& id, internal::v1::CaptureKind kind,
                                          int max_positions) {
  internal::v1::OpenCaptureRequest request;
  request.set_capture(id.bytes());
  request.set_engine("engine");
  request.set_kind(kind);
  *request.mutable_spec() = TestSpec();
  request.set_position_bytes(kTestPositionBytes);
  request.set_max_positions(max_positions);
  request.set_ttl_seconds(kind == internal::v1::CAPTURE_KIND_KEPT ? 3600 : 0);
  return request;
}

std::string TestPayload(int32_t position) {
  std::string payload;
  for (int row = 0; row < 3; ++row) {
    AppendFloat(static_cast<float>(position), &payload);
    AppendFloat(static_cast<float>(row), &payload);
  }
  return payload;
}

internal::v1::RankMessage TestChunk(const CaptureId& id, int64_t seq, const std::vector<int32_t>& positions) {
  internal::v1::RankMessage message;
  auto* chunk = message.mutable_chunk();
  chunk->set_capture(id.bytes());
  chunk->set_seq(seq);
  for (const int32_t position : positions) {
    chunk->add_positions(position);
    chunk->add_target_ids(100 + position);
    chunk->add_lens(true);
    chunk->mutable_data()->append(TestPayload(position));
  }
  const std::string& data = chunk->data();
  chunk->set_crc32(crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size()));
  return message;
}

sextant::v1::Readings TestReadings(const std::vector<int32_t>& positions, float marker) {
  sextant::v1::Readings readings;
  for (const int layer : {0, 1}) {
    readings.add_sites(sextant::v1::SITE_RESID_POST);
    readings.add_layers(layer);
  }
  readings.set_top_k(2);
  readings.set_target_count(1);
  for (const int32_t position : positions) {
    readings.add_positions(position);
    for (int row = 0; row < 2; ++row) {
      for (int k = 0; k < 2; ++k) {
        AppendInt(position * 10 + k, readings.mutable_top_ids());
        AppendFloat(-1.0f - k, readings.mutable_top_logprobs());
      }
      AppendFloat(marker, readings.mutable_entropy_nats());
      AppendFloat(0, readings.mutable_kl_final_nats());
      AppendFloat(-2, readings.mutable_target_logprobs());
      AppendInt(3, readings.mutable_target_ranks());
    }
    AppendInt(100 + position, readings.mutable_target_ids());
    AppendInt(0, readings.mutable_prediction_depths());
  }
  return readings;
}

internal::v1::RankMessage TestAttach(const CaptureId& id) {
  internal::v1::RankMessage message;
  message.mutable_attach()->set_capture(id.bytes());
  message.mutable_attach()->set_position_bytes(kTestPositionBytes);
  return message;
}

internal::v1::RankMessage TestSeal(const CaptureId& id, int position_count, int lens_position_count) {
  internal::v1::RankMessage message;
  message.mutable_seal()->set_capture(id.bytes());
  message.mutable_seal()->set_position_count(position_count);
  message.mutable_seal()->set_lens_position_count(lens_position_count);
  return message;
}

internal::v1::RankMessage TestEnd(const CaptureId& id) {
  internal::v1::RankMessage message;
  message.mutable_end()->set_capture(id.bytes());
  message.mutable_end()->set_reason("CANCELLED");
  return message;
}

internal::v1::RankHello TestHello(int64_t epoch, int32_t rank) {
  internal::v1::RankHello hello;
  hello.set_engine("engine");
  hello.set_epoch(epoch);
  hello.set_rank(rank);
  return hello;
}

internal::v1::DecoderHello TestDecoderHello() {
  internal::v1::DecoderHello hello;
  hello.set_decoder("decoder");
  hello.add_lens_digests(TestDigest());
  return hello;
}

internal::v1::DecoderMessage TestWant(int64_t bytes) {
  internal::v1::DecoderMessage message;
  message.mutable_want()->set_bytes(bytes);
  return message;
}

internal::v1::DecoderMessage TestResult(int64_t lease, const CaptureId& id,
                                        const std::vector<int32_t>& positions, float marker) {
  internal::v1::DecoderMessage message;
  message.mutable_result()->set_lease(lease);
  message.mutable_result()->set_capture(id.bytes());
  *message.mutable_result()->mutable_readings() = TestReadings(positions, marker);
  return message;
}

}  // namespace sextant::testing
