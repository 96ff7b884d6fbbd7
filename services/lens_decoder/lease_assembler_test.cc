// Tests of putting leases together, whole and hostile ones.
#include "services/lens_decoder/lease_assembler.h"

#include "common/base/error.h"
#include "gtest/gtest.h"
#include "services/lens_decoder/testing/tiny_lens.h"

namespace sextant {
namespace {

using internal::v1::DecoderReply;

Lease TinyLease() {
  return MakeTinyLease({.rows = {{v1::SITE_RESID_POST, 0}, {v1::SITE_RESID_POST, 1}},
                        .final_row_index = 1,
                        .position_count = 3},
                       1);
}

DecoderReply Announce(const Lease& lease) {
  DecoderReply reply;
  reply.mutable_lease()->set_lease(lease.id);
  reply.mutable_lease()->set_capture(lease.capture);
  *reply.mutable_lease()->mutable_spec() = lease.spec;
  *reply.mutable_lease()->mutable_positions() = {lease.positions.begin(), lease.positions.end()};
  *reply.mutable_lease()->mutable_target_ids() = {lease.target_ids.begin(), lease.target_ids.end()};
  reply.mutable_lease()->set_data_bytes(static_cast<int64_t>(lease.data.size()));
  return reply;
}

DecoderReply Data(int64_t lease, const std::string& bytes, bool last) {
  DecoderReply reply;
  reply.mutable_data()->set_lease(lease);
  reply.mutable_data()->set_data(bytes);
  reply.mutable_data()->set_last(last);
  return reply;
}

class LeaseAssemblerTest : public testing::Test {
 protected:
  // The reason for which the lease of these messages is bad; "whole", "more to come" or the stream's own
  // reason.
  std::string Add(DecoderReply message) {
    auto arrived = assembler_.Add(std::move(message));
    if (!arrived.ok()) return ErrorReason(arrived.status());
    if (!arrived->has_value()) return "more to come";
    if (const BadLease* bad = std::get_if<BadLease>(&**arrived)) {
      EXPECT_EQ(bad->id, lease_.id);
      return ErrorReason(bad->status);
    }
    whole_ = std::get<Lease>(**std::move(arrived));
    return "whole";
  }

  const Lease lease_ = TinyLease();
  LeaseAssembler assembler_{static_cast<int64_t>(lease_.data.size())};
  Lease whole_;
};

TEST_F(LeaseAssemblerTest, PartsJoin) {
  EXPECT_EQ(Add(Announce(lease_)), "more to come");
  EXPECT_EQ(Add(Data(lease_.id, lease_.data.substr(0, 50), false)), "more to come");
  EXPECT_EQ(Add(Data(lease_.id + 1, "of another lease", true)), "more to come");
  EXPECT_EQ(Add(Data(lease_.id, lease_.data.substr(50), true)), "whole");
  EXPECT_EQ(whole_.data, lease_.data);
  EXPECT_EQ(whole_.positions, lease_.positions);
  EXPECT_EQ(whole_.target_ids, lease_.target_ids);
  EXPECT_EQ(whole_.capture, lease_.capture);
}

TEST_F(LeaseAssemblerTest, AnnouncementsThatDoNotFitAreBadAndTheirDataIsPassedOver) {
  const auto bad = [this](auto change) {
    DecoderReply reply = Announce(lease_);
    change(*reply.mutable_lease());
    const std::string reason = Add(std::move(reply));
    EXPECT_EQ(Add(Data(lease_.id, lease_.data, true)), "more to come");
    return reason;
  };
  EXPECT_EQ(bad([](auto& lease) { lease.clear_positions(); }), "LEASE_INVALID");
  EXPECT_EQ(bad([](auto& lease) { lease.add_target_ids(1); }), "LEASE_INVALID");
  EXPECT_EQ(bad([](auto& lease) { lease.set_positions(1, lease.positions(0)); }), "LEASE_INVALID");
  EXPECT_EQ(bad([](auto& lease) { lease.set_data_bytes(lease.data_bytes() - 1); }), "LEASE_INVALID");
  EXPECT_EQ(bad([](auto& lease) { lease.set_data_bytes(-1); }), "LEASE_INVALID");
  EXPECT_EQ(bad([](auto& lease) { lease.set_data_bytes(int64_t{1} << 60); }), "LEASE_TOO_BIG");
  EXPECT_EQ(bad([](auto& lease) { lease.clear_spec(); }), "LEASE_INVALID");
  EXPECT_EQ(bad([](auto& lease) { lease.mutable_spec()->mutable_lens()->add_row_indices(9); }),
            "LEASE_INVALID");
  EXPECT_EQ(Add(Announce(lease_)), "more to come");  // and a good one is taken afterwards
}

TEST_F(LeaseAssemblerTest, DataOfAnotherSizeIsBad) {
  EXPECT_EQ(Add(Announce(lease_)), "more to come");
  EXPECT_EQ(Add(Data(lease_.id, lease_.data + "x", true)), "LEASE_INVALID");
  EXPECT_EQ(Add(Announce(lease_)), "more to come");
  EXPECT_EQ(Add(Data(lease_.id, "x", true)), "LEASE_INVALID");
}

TEST_F(LeaseAssemblerTest, ALeaseWithinALeaseEndsTheStream) {
  EXPECT_EQ(Add(Announce(lease_)), "more to come");
  EXPECT_EQ(Add(Announce(lease_)), "STREAM_PROTOCOL");
}

TEST_F(LeaseAssemblerTest, EmptyMessagesArePassedOver) { EXPECT_EQ(Add(DecoderReply()), "more to come"); }

}  // namespace
}  // namespace sextant
