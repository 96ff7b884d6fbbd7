// The contract of every backend, part 4: sampling, steering, recording and the lens.
#include <cmath>
#include <vector>

#include "kernels/backend_contract.h"
#include "kernels/reference/lens_case.h"
#include "kernels/reference/sample.h"
#include "kernels/reference/steer.h"

namespace sextant {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16};

class BackendRowsTest : public BackendTest {};

INSTANTIATE_TEST_SUITE_P(Backends, BackendRowsTest, testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(BackendRowsTest, SamplesEachRowByItsOwnSettings) {
  const HostTensor logits = Random(DType::kF32, 4, 333, 2);
  const std::vector<SampleSettings> settings = {
      {},
      {.temperature = 0.7f, .seed = 5},
      {.temperature = 1.3f, .top_k = 10, .top_p = 0.8f, .seed = 5, .counter = 9},
      {.temperature = 1, .top_p = 0.5f, .seed = 77}};
  const Tensor ids = Device(DType::kI32, 4, 1), logprobs = Device(DType::kF32, 4, 1);
  backend().Sample(stream(), Upload(logits), settings, ids, logprobs);
  const HostTensor actual_ids = Download(ids), actual_logprobs = Download(logprobs);
  for (int64_t r = 0; r < 4; ++r) {
    const reference::SampledToken expected = reference::Sample(logits.view().Row<float>(r), 333, settings[r]);
    EXPECT_EQ(actual_ids.view().Row<int32_t>(r)[0], expected.id);
    // A log-sum-exp over 333 logits: exponentials within 2 units in the last place, summed in any order.
    EXPECT_NEAR(actual_logprobs.At(r, 0), expected.logprob,
                340 * 0x1p-24 + std::abs(expected.logprob) * 0x1p-22);
  }
}

TEST_P(BackendRowsTest, SteersTheRowsOfEachEntryInOrder) {
  for (const DType dtype : kDTypes) {
    const HostTensor activation = Random(dtype, 9, 50), directions = Random(DType::kF32, 2, 50);
    const Tensor steered = Upload(activation, 3), device_directions = Upload(directions);
    std::vector<SteerEntry> entries(2);
    entries[0] = {.strength = 1.5f, .direction = device_directions.Rows(0, 1), .rows = {0, 3, 8}};
    entries[1] = {.op = SteerOperator::kAddScaled,
                  .strength = -0.5f,
                  .preserve_norm = true,
                  .direction = device_directions.Rows(1, 1),
                  .rows = {3, 4}};
    backend().Steer(stream(), steered, entries);
    HostTensor expected(DType::kF32, 9, 50);
    for (int64_t r = 0; r < 9; ++r) {
      std::vector<double> row;
      for (int64_t c = 0; c < 50; ++c) row.push_back(activation.At(r, c));
      for (size_t i = 0; i < entries.size(); ++i) {
        for (const int32_t at : entries[i].rows) {
          if (at == r)
            row = reference::Steer(entries[i], directions.view().Row<float>(static_cast<int64_t>(i)), row);
        }
      }
      for (int64_t c = 0; c < 50; ++c) expected.view().Set(r, c, static_cast<float>(row[c]));
    }
    // Rounded to the row's dtype after every entry; values stay below 16.
    ExpectNear(Download(steered), expected, [&](int64_t r, int64_t c) {
      const bool touched = r == 0 || r == 3 || r == 4 || r == 8;
      return touched ? 16 * 0x1p-22 + 2 * RoundingError(dtype, 4 + std::abs(expected.At(r, c))) : 0.0;
    });
  }
}

TEST_P(BackendRowsTest, RecordsRowsAndTheirRms) {
  constexpr float kEps = 1e-5f;
  for (const DType from : kDTypes) {
    for (const DType to : kDTypes) {
      const HostTensor activation = Random(from, 9, 50);
      const int64_t row_bytes = 50 * SizeOf(to);
      auto ring = *backend().Allocate(1024, MemoryKind::kPinned);
      backend().Zero(stream(), ring.data(), 1024);
      const Tensor device = Upload(activation, 1);
      backend().RecordRows(stream(), device, {{8, 200}, {-1, 600}, {0, 200 + row_bytes}}, to, ring.data());
      backend().RecordRms(stream(), device, kEps, {{8, 0}, {4, 4}, {-1, 600}}, ring.data());
      // Only room.
      backend().RecordRows(stream(), device, {{-1, 600}, {-1, 600}}, to, ring.data());
      backend().RecordRms(stream(), device, kEps, {{-1, 600}}, ring.data());
      ASSERT_EQ(backend().Synchronize(stream()), absl::OkStatus());
      const Tensor rows = {static_cast<char*>(ring.data()) + 200, to, 2, 50, 50};
      for (int64_t c = 0; c < 50; ++c) {
        HostTensor expected(to, 2, 1);
        expected.view().Set(0, 0, activation.At(8, c));
        expected.view().Set(1, 0, activation.At(0, c));
        EXPECT_EQ(rows.At(0, c), expected.At(0, 0));
        EXPECT_EQ(rows.At(1, c), expected.At(1, 0));
      }
      const int64_t rms_rows[] = {8, 4};
      for (int64_t i = 0; i < 2; ++i) {
        double squares = 0;
        for (int64_t c = 0; c < 50; ++c) squares += std::pow(activation.At(rms_rows[i], c), 2);
        const double rms = std::sqrt(squares / 50 + kEps);
        EXPECT_NEAR(static_cast<const float*>(ring.data())[i], rms, rms * 30 * 0x1p-24);
      }
      for (int64_t at = 600; at < 1024; ++at) EXPECT_EQ(static_cast<const char*>(ring.data())[at], 0);
    }
  }
}

TEST_P(BackendRowsTest, CommonSizesHoldTheirRowsAndAreCommonThemselves) {
  for (int64_t rows = 1; rows <= 600; ++rows) {
    const int64_t common = backend().CommonRows(rows);
    EXPECT_GE(common, rows);
    EXPECT_EQ(backend().CommonRows(common), common);
  }
}

// A capture's way: rows of many steps into one ring, in places of any order, looked at from the host and from
// another stream.
TEST_P(BackendRowsTest, RecordedRowsAreThereForWhateverComesAfter) {
  constexpr int64_t kCols = 24, kSlots = 40;
  auto ring = *backend().Allocate(kSlots * kCols * 2, MemoryKind::kPinned);
  auto copying = NewStream();
  auto recorded = NewEvent();
  for (const bool step : {false, true}) {
    for (int32_t round = 0; round < 4; ++round) {
      const HostTensor values = Random(DType::kBF16, 12, kCols);
      const Tensor activation = Upload(values);
      backend().Zero(stream(), ring.data(), kSlots * kCols * 2);
      std::vector<RecordEntry> entries;
      for (int32_t i = 0; i < 5 + round; ++i) {
        entries.push_back({(i + round) % 12, ((i * 17 + round) % kSlots) * kCols * 2});
      }
      if (step) backend().BeginStep(stream());
      for (const RecordEntry& entry : entries)
        backend().RecordRows(stream(), activation, {entry}, DType::kBF16, ring.data());
      backend().Zero(stream(), activation.data, 12 * kCols * 2);
      if (step) backend().EndStep(stream());
      backend().RecordEvent(stream(), *recorded);
      backend().WaitEvent(*copying, *recorded);
      HostTensor copied(DType::kBF16, kSlots, kCols);
      backend().Copy(*copying, copied.view().data, ring.data(), kSlots * kCols * 2);
      ASSERT_EQ(backend().Synchronize(*copying), absl::OkStatus());
      HostTensor expected(DType::kBF16, kSlots, kCols);
      for (const RecordEntry& entry : entries) {
        for (int64_t c = 0; c < kCols; ++c) {
          expected.view().Set(entry.offset / (kCols * 2), c, values.At(entry.row, c));
        }
      }
      ExpectSameBits(copied, expected);
    }
  }
}

TEST_P(BackendRowsTest, ReadsRowsThroughTheLens) {
  for (const DType dtype : kDTypes) {
    const LensCase lens_case({.group_sizes = {3, 1, 9},
                              .hidden = 64,
                              .vocab = 337,
                              .target_count = 2,
                              .tracked = true,
                              .row_dtype = dtype,
                              .compute = dtype});
    auto head = backend().PackMatrix(dtype, 337, 64, lens_case.Head());
    ASSERT_TRUE(head.ok()) << head.status();
    LensBatch batch = lens_case.Batch();
    HostTensor rows(batch.rows.dtype, batch.rows.rows, batch.rows.cols), norm(DType::kF32, 1, 64);
    for (int64_t r = 0; r < batch.rows.rows; ++r) {
      for (int64_t c = 0; c < 64; ++c) rows.view().Set(r, c, batch.rows.At(r, c));
    }
    for (int64_t c = 0; c < 64; ++c) norm.view().Set(0, c, lens_case.NormWeight().At(0, c));
    batch.rows = Upload(rows);
    LensResult result(batch);
    backend().Lens(stream(), batch, Upload(norm), lens_case.eps(), **head, result.Output());
    ASSERT_EQ(backend().Synchronize(stream()), absl::OkStatus());
    EXPECT_EQ(lens_case.Difference(result, lens_case.Reference()), "");
  }
}

}  // namespace
}  // namespace sextant
