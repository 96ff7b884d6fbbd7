// The outbox against a scripted capture service: batches, parts, acknowledgements, reconnects, Gone.
#include "services/shard_worker/capture_outbox.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>

#include "common/activation/row_layout.h"
#include "kernels/cpu/backend.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

constexpr int64_t kSlotBytes = 8;
const char kCapture[] = "capture-16-bytes";

pb::CaptureSpec Spec(int rows, bool scales = false) {
  pb::CaptureSpec spec;
  for (int i = 0; i < rows; ++i) {
    auto* row = spec.add_rows();
    row->set_site(sextant::v1::SITE_RESID_POST);
    row->set_layer(i);
  }
  spec.set_dtype(sextant::v1::DTYPE_BF16);
  spec.set_hidden_size(kSlotBytes / 2);
  spec.set_has_scales(scales);
  return spec;
}

class CaptureOutboxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Make({.engine = "e", .epoch = 5, .rank = 0, .chunk_bytes = 48, .message_bytes = 64});
  }

  void Make(const OutboxOptions& options) {
    outbox_.reset();
    backend_ = *MakeCpuBackend({});
    ring_ = *CaptureRing::Make(*backend_, kSlotBytes, 64);
    CaptureAnswers answers;
    answers.on_credit = [this](const std::string&, int64_t total) { credit_ = total; };
    answers.on_sealed = [this](const std::string&) { sealed_ = true; };
    answers.on_gone = [this](const std::string&, const std::string& reason) { gone_ = reason; };
    outbox_ = std::make_unique<CaptureOutbox>(options, clock_, *ring_, answers, [] {});
    outbox_->OnConnecting();
  }

  // Records a position whose payload bytes are position, position + 1, ...
  void Record(int32_t position, int32_t slot_count, int32_t target = 1) {
    std::vector<int32_t> slots = outbox_->Reserve(kCapture, slot_count);
    if (slots.empty()) return;
    int64_t at = 0;
    for (const int32_t slot : slots) {
      for (int64_t i = 0; i < kSlotBytes; ++i) {
        ring_->memory()[slot * kSlotBytes + i] = static_cast<char>(position + at++);
      }
    }
    outbox_->Recorded(kCapture, position, slots, true, target);
  }

  std::vector<pb::RankMessage> Drain() {
    std::vector<pb::RankMessage> messages;
    while (auto message = outbox_->Next()) messages.push_back(*message);
    return messages;
  }

  std::vector<pb::Chunk> DrainChunks() {
    std::vector<pb::Chunk> chunks;
    for (pb::RankMessage& message : Drain()) {
      if (message.has_chunk()) chunks.push_back(message.chunk());
    }
    return chunks;
  }

  void Ack(int64_t next_seq) {
    pb::RankReply reply;
    reply.mutable_ack()->set_capture(kCapture);
    reply.mutable_ack()->set_next_seq(next_seq);
    outbox_->OnReply(reply);
  }

  ManualClock clock_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<CaptureRing> ring_;
  std::unique_ptr<CaptureOutbox> outbox_;
  int64_t credit_ = 0;
  bool sealed_ = false;
  std::string gone_;
};

TEST_F(CaptureOutboxTest, SendsAtSizeOrAfterTheDelayAndOnlyWhatIsStamped) {
  outbox_->Open(kCapture, "a:1", Spec(2));
  Drain();
  Record(0, 2);
  Record(1, 2, CaptureOutbox::kTargetUnknown);
  EXPECT_TRUE(DrainChunks().empty()) << "neither full nor old";
  clock_.Advance(absl::Milliseconds(60));
  std::vector<pb::Chunk> chunks = DrainChunks();
  ASSERT_EQ(chunks.size(), 1u);
  ASSERT_EQ(chunks[0].positions_size(), 1) << "position 1 has no stamp";
  EXPECT_EQ(chunks[0].data().size(), 16u);
  EXPECT_EQ(chunks[0].data()[3], 3);
  EXPECT_EQ(chunks[0].crc32(), crc32(0, reinterpret_cast<const Bytef*>(chunks[0].data().data()), 16));
  outbox_->Stamp(kCapture, 1, 42);
  Record(2, 2);
  Record(3, 2);
  chunks = DrainChunks();
  ASSERT_EQ(chunks.size(), 1u) << "48 bytes are ready";
  EXPECT_EQ(chunks[0].seq(), 1);
  EXPECT_EQ(chunks[0].positions_size(), 3);
  EXPECT_EQ(chunks[0].target_ids(0), 42);
}

TEST_F(CaptureOutboxTest, FreesTheRingWhenAcknowledgedAndSendsAgainAfterAReconnect) {
  outbox_->Open(kCapture, "a:1", Spec(2));
  for (int32_t p = 0; p < 6; ++p) Record(p, 2);
  EXPECT_EQ(DrainChunks().size(), 2u);
  Ack(1);
  EXPECT_EQ(ring_->used_count(), 6);
  EXPECT_EQ(ring_->released_count(), 6);
  outbox_->OnDisconnected();
  outbox_->OnConnecting();
  const std::vector<pb::RankMessage> again = Drain();
  ASSERT_EQ(again.size(), 2u);
  EXPECT_TRUE(again[0].has_hello());
  EXPECT_EQ(again[0].hello().epoch(), 5);
  EXPECT_EQ(again[1].chunk().seq(), 1);
  EXPECT_EQ(again[1].chunk().positions(0), 3);
  Ack(2);
  EXPECT_EQ(ring_->used_count(), 0);
  outbox_->Close(kCapture, pb::END_KIND_SEAL);
  EXPECT_FALSE(outbox_->busy());
}

TEST_F(CaptureOutboxTest, CutsABigPositionIntoPartsAndRepeatsThemFromTheFirst) {
  // 20 rows of 8 bytes and 80 bytes of scales: 240 bytes in 4 parts.
  const pb::CaptureSpec spec = Spec(20, true);
  ASSERT_EQ(PositionBytes(spec), 240);
  outbox_->Open(kCapture, "a:1", spec);
  Record(7, 30);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const std::vector<pb::Chunk> parts = DrainChunks();
    ASSERT_EQ(parts.size(), 4u);
    std::string all;
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(parts[i].seq(), i);
      EXPECT_EQ(parts[i].part(), i);
      EXPECT_EQ(parts[i].part_count(), 4);
      EXPECT_EQ(parts[i].positions_size(), 1);
      all += parts[i].data();
    }
    ASSERT_EQ(all.size(), 240u);
    for (int i = 0; i < 240; ++i) ASSERT_EQ(all[i], static_cast<char>(7 + i));
    outbox_->OnConnecting();
  }
  Ack(3);
  EXPECT_EQ(ring_->used_count(), 30) << "the position is not there yet";
  Ack(4);
  EXPECT_EQ(ring_->used_count(), 0);
}

TEST_F(CaptureOutboxTest, GoneFreesRowsThenAndLater) {
  outbox_->Open(kCapture, "a:1", Spec(2));
  outbox_->Attach("a:1", kCapture, 16);
  Record(0, 2);
  pb::RankReply reply;
  reply.mutable_gone()->set_capture(kCapture);
  reply.mutable_gone()->set_reason("CAPTURE_NOT_FOUND");
  outbox_->OnReply(reply);
  EXPECT_EQ(gone_, "CAPTURE_NOT_FOUND");
  EXPECT_EQ(ring_->released_count(), 2);
  Record(1, 2);
  EXPECT_EQ(ring_->released_count(), 4) << "the leader has counted it as recorded";
  EXPECT_EQ(ring_->used_count(), 0);
  outbox_->Close(kCapture, pb::END_KIND_DISCARD);
  EXPECT_FALSE(outbox_->busy());
}

TEST_F(CaptureOutboxTest, RepeatsAttachSealAndEndUntilTheyAreAnswered) {
  outbox_->Attach("a:1", kCapture, 16);
  outbox_->Seal(kCapture, 3, 2);
  EXPECT_FALSE(outbox_->Reachable("a:1"));
  for (int attempt = 0; attempt < 2; ++attempt) {
    const std::vector<pb::RankMessage> messages = Drain();
    ASSERT_EQ(messages.size(), 3u);
    EXPECT_TRUE(messages[0].has_hello());
    EXPECT_EQ(messages[1].attach().position_bytes(), 16);
    EXPECT_EQ(messages[2].seal().lens_position_count(), 2);
    EXPECT_TRUE(Drain().empty());
    outbox_->OnConnecting();
  }
  Drain();
  pb::RankReply reply;
  reply.mutable_hello();
  outbox_->OnReply(reply);
  EXPECT_TRUE(outbox_->Reachable("a:1"));
  reply.mutable_sealed()->set_capture(kCapture);
  outbox_->OnReply(reply);
  EXPECT_TRUE(sealed_);
  EXPECT_FALSE(outbox_->busy());

  outbox_->Attach("a:1", kCapture, 16);
  outbox_->End(kCapture, "CANCELLED");
  const std::vector<pb::RankMessage> messages = Drain();
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[1].end().reason(), "CANCELLED");
}

TEST_F(CaptureOutboxTest, SealSendsTheRestAtOnce) {
  outbox_->Open(kCapture, "a:1", Spec(2));
  Record(0, 2);
  EXPECT_TRUE(DrainChunks().empty());
  outbox_->Close(kCapture, pb::END_KIND_SEAL);
  EXPECT_EQ(DrainChunks().size(), 1u);
}

}  // namespace
}  // namespace sextant
