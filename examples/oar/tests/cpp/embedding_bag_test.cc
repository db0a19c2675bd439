#include <algorithm>
#include <stdexcept>

#include "oar/oar.h"
#include "reference.h"

namespace oar {
namespace {

template <typename Index>
Bags<Index> View(const std::vector<Index>& indices, const std::vector<Index>& offsets) {
  return {indices.data(), static_cast<int64_t>(indices.size()), offsets.data(),
          static_cast<int64_t>(offsets.size())};
}

template <typename Index>
class EmbeddingBag : public testing::Test {};
using IndexTypes = testing::Types<int32_t, int64_t>;
TYPED_TEST_SUITE(EmbeddingBag, IndexTypes);

TYPED_TEST(EmbeddingBag, MatchesPlainLoops) {
  const int64_t rows = 40, dim = 19, count = 200;
  std::vector<TypeParam> indices, offsets{0, 0, 1, 50, 50, 190};  // two empty bags
  for (int64_t i = 0; i < count; ++i) indices.push_back(static_cast<TypeParam>(i * 7 % rows));
  const int64_t bags = static_cast<int64_t>(offsets.size());
  const Floats weight = Random(rows * dim, 11), dy = Random(bags * dim, 12);
  for (BagMode mode : {BagMode::kSum, BagMode::kMean}) {
    Doubles want_y(bags * dim), want_dweight(rows * dim);
    for (int64_t b = 0; b < bags; ++b) {
      const int64_t last = b + 1 < bags ? offsets[b + 1] : count;
      const double size = static_cast<double>(std::max<int64_t>(last - offsets[b], 1));
      const double scale = mode == BagMode::kMean ? 1.0 / size : 1.0;
      for (int64_t i = offsets[b]; i < last; ++i) {
        for (int64_t j = 0; j < dim; ++j) {
          want_y[b * dim + j] += scale * weight[indices[i] * dim + j];
          want_dweight[indices[i] * dim + j] += scale * dy[b * dim + j];
        }
      }
    }
    Floats y = Garbage(bags * dim), dweight = Garbage(rows * dim);
    EmbeddingBagForward(weight.data(), View(indices, offsets), rows, dim, mode, y.data());
    EmbeddingBagBackward(dy.data(), View(indices, offsets), rows, dim, mode, dweight.data());
    ExpectClose(y, want_y, 1e-5);
    ExpectClose(dweight, want_dweight, 1e-5);
  }
}

TYPED_TEST(EmbeddingBag, RejectsWhatLiesOutside) {
  const Floats weight(4);
  Floats y = Garbage(4);
  const auto run = [&](const std::vector<TypeParam>& indices,
                       const std::vector<TypeParam>& offsets) {
    EmbeddingBagForward(weight.data(), View(indices, offsets), 2, 2, BagMode::kSum, y.data());
  };
  EXPECT_THROW(run({2}, {0}), std::out_of_range);
  EXPECT_THROW(run({-1}, {0}), std::out_of_range);
  EXPECT_THROW(run({0}, {1}), std::invalid_argument);
  EXPECT_THROW(run({0, 1}, {0, 3}), std::invalid_argument);
  EXPECT_THROW(run({0, 1}, {0, -1}), std::invalid_argument);
  EXPECT_THROW(run({0}, {}), std::invalid_argument);
  EXPECT_EQ(y, Garbage(4));
}

TYPED_TEST(EmbeddingBag, NoBagsGiveAZeroGradient) {
  Floats dweight = Garbage(6);
  EmbeddingBagBackward(nullptr, Bags<TypeParam>{nullptr, 0, nullptr, 0}, 3, 2, BagMode::kMean,
                       dweight.data());
  EXPECT_EQ(dweight, Floats(6));
}

}  // namespace
}  // namespace oar
