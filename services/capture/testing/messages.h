// Makers of well-formed messages for tests of the capture service.
#pragma once

#include <string>
#include <vector>

#include "services/capture/capture_id.h"
#include "sextant/internal/v1/capture.pb.h"

namespace sextant::testing {

// The id that is `number` and zeros.
CaptureId TestId(int number);

// Rows attn_out@0, resid_post@0, resid_post@1 of F32 [2]; the lens reports resid_post@0 and resid_post@1, the
// final row, with 2 candidates. A position is 24 bytes.
internal::v1::CaptureSpec TestSpec();
inline constexpr int64_t kTestPositionBytes = 24;

// The digest in TestSpec.
std::string TestDigest();

internal::v1::OpenCaptureRequest TestOpen(const CaptureId& id, internal::v1::CaptureKind kind,
                                          int max_positions);

// A position's payload: numbers that tell position and row apart. [3, 2] F32
std::string TestPayload(int32_t position);

// A chunk of whole positions for the lens; the target of position p is 100 + p.
internal::v1::RankMessage TestChunk(const CaptureId& id, int64_t seq, const std::vector<int32_t>& positions);

// The readings of these positions that TestSpec's lens calls for; `marker` is every row's entropy.
sextant::v1::Readings TestReadings(const std::vector<int32_t>& positions, float marker);

internal::v1::RankMessage TestAttach(const CaptureId& id);
internal::v1::RankMessage TestSeal(const CaptureId& id, int position_count, int lens_position_count);
internal::v1::RankMessage TestEnd(const CaptureId& id);
internal::v1::RankHello TestHello(int64_t epoch, int32_t rank);
internal::v1::DecoderHello TestDecoderHello();
internal::v1::DecoderMessage TestWant(int64_t bytes);
internal::v1::DecoderMessage TestResult(int64_t lease, const CaptureId& id,
                                        const std::vector<int32_t>& positions, float marker);

}  // namespace sextant::testing
