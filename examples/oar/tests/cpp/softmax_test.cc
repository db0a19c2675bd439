#include <limits>
#include <stdexcept>

#include "oar/oar.h"
#include "reference.h"

namespace oar {
namespace {

TEST(SoftmaxCrossEntropy, MatchesPlainLoops) {
  for (int64_t classes : {1, 2, 10, 37}) {
    const int64_t batch = 21;
    const Floats logits = Random(batch * classes, 5), dloss = Random(batch, 6);
    std::vector<int32_t> labels(batch);
    Doubles want_loss(batch), want_p(batch * classes), want_d(batch * classes);
    for (int64_t i = 0; i < batch; ++i) {
      labels[i] = static_cast<int32_t>(i % classes);
      double sum = 0;
      for (int64_t j = 0; j < classes; ++j) sum += std::exp(double{logits[i * classes + j]});
      for (int64_t j = 0; j < classes; ++j) {
        want_p[i * classes + j] = std::exp(double{logits[i * classes + j]}) / sum;
        want_d[i * classes + j] = dloss[i] * (want_p[i * classes + j] - (j == labels[i]));
      }
      want_loss[i] = std::log(sum) - logits[i * classes + labels[i]];
    }
    Floats loss = Garbage(batch), p = Garbage(batch * classes), d = Garbage(batch * classes);
    SoftmaxCrossEntropyForward(logits.data(), labels.data(), batch, classes, loss.data(), p.data());
    SoftmaxCrossEntropyBackward(dloss.data(), p.data(), labels.data(), batch, classes, d.data());
    ExpectClose(loss, want_loss, 1e-6);
    ExpectClose(p, want_p, 1e-6);
    ExpectClose(d, want_d, 1e-6);
  }
}

TEST(SoftmaxCrossEntropy, SurvivesHugeLogitsAndMaskedClasses) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Floats logits{1e30f, -infinity, 1e30f, -1e30f};
  const int64_t label = 2;
  float loss = -1;
  Floats p = Garbage(4);
  SoftmaxCrossEntropyForward(logits.data(), &label, 1, 4, &loss, p.data());
  EXPECT_EQ(p, (Floats{0.5f, 0, 0.5f, 0}));
  EXPECT_TRUE(std::isfinite(loss));
}

TEST(SoftmaxCrossEntropy, LabelOutsideTheClassesThrowsAndWritesNothing) {
  const Floats logits(6);
  Floats loss = Garbage(2), p = Garbage(6);
  for (int64_t wrong : {int64_t{-1}, int64_t{3}, std::numeric_limits<int64_t>::max()}) {
    const int64_t labels[] = {0, wrong};
    EXPECT_THROW(SoftmaxCrossEntropyForward(logits.data(), labels, 2, 3, loss.data(), p.data()),
                 std::out_of_range);
    EXPECT_THROW(SoftmaxCrossEntropyBackward(loss.data(), p.data(), labels, 2, 3, p.data()),
                 std::out_of_range);
  }
  EXPECT_EQ(loss, Garbage(2));
  EXPECT_EQ(p, Garbage(6));
}

TEST(SoftmaxCrossEntropy, EmptyBatchDoesNothing) {
  SoftmaxCrossEntropyForward<int32_t>(nullptr, nullptr, 0, 5, nullptr, nullptr);
  SoftmaxCrossEntropyBackward<int32_t>(nullptr, nullptr, nullptr, 0, 5, nullptr);
}

}  // namespace
}  // namespace oar
