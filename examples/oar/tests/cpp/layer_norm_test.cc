#include <limits>
#include <stdexcept>

#include "oar/oar.h"
#include "reference.h"

namespace oar {
namespace {

struct Reference {
  Doubles y, mean, rstd, dx, dgamma, dbeta;
};

Reference Compute(const Floats& x, const Floats& gamma, const Floats& beta, const Floats& dy,
                  int64_t batch, int64_t features, double eps) {
  Reference r{Doubles(x.size()), Doubles(batch),    Doubles(batch),
              Doubles(x.size()), Doubles(features), Doubles(features)};
  const double n = static_cast<double>(features);
  for (int64_t i = 0; i < batch; ++i) {
    double mean = 0, variance = 0, mean_g = 0, mean_gn = 0;
    for (int64_t j = 0; j < features; ++j) mean += x[i * features + j] / n;
    for (int64_t j = 0; j < features; ++j) variance += std::pow(x[i * features + j] - mean, 2) / n;
    const double rstd = 1 / std::sqrt(variance + eps);
    for (int64_t j = 0; j < features; ++j) {
      const int64_t at = i * features + j;
      const double normed = (x[at] - mean) * rstd, g = double{dy[at]} * gamma[j];
      r.y[at] = normed * gamma[j] + beta[j];
      r.dgamma[j] += dy[at] * normed;
      r.dbeta[j] += dy[at];
      mean_g += g / n;
      mean_gn += g * normed / n;
    }
    for (int64_t j = 0; j < features; ++j) {
      const int64_t at = i * features + j;
      const double normed = (x[at] - mean) * rstd;
      r.dx[at] = rstd * (double{dy[at]} * gamma[j] - mean_g - normed * mean_gn);
    }
    r.mean[i] = mean;
    r.rstd[i] = rstd;
  }
  return r;
}

TEST(LayerNorm, MatchesPlainLoops) {
  for (int64_t batch : {0, 1, 19, 300}) {
    for (int64_t features : {1, 3, 16, 133}) {
      const int64_t n = batch * features;
      const float eps = 1e-3f;
      const Floats x = Random(n, 7), gamma = Random(features, 8), beta = Random(features, 9),
                   dy = Random(n, 10);
      const Reference want = Compute(x, gamma, beta, dy, batch, features, eps);
      Floats y = Garbage(n), mean = Garbage(batch), rstd = Garbage(batch), dx = Garbage(n),
             dgamma = Garbage(features), dbeta = Garbage(features);
      LayerNormForward(x.data(), gamma.data(), beta.data(), batch, features, eps, y.data(),
                       mean.data(), rstd.data());
      LayerNormBackward(dy.data(), x.data(), gamma.data(), mean.data(), rstd.data(), batch,
                        features, dx.data(), dgamma.data(), dbeta.data());
      ExpectClose(y, want.y, 1e-5);
      ExpectClose(mean, want.mean, 1e-5);
      ExpectClose(rstd, want.rstd, 1e-4);
      ExpectClose(dx, want.dx, 1e-4);
      ExpectClose(dgamma, want.dgamma, 1e-4);
      ExpectClose(dbeta, want.dbeta, 1e-4);
    }
  }
}

TEST(LayerNorm, SmallVarianceOnALargeMeanIsNotLost) {
  const Floats x{10000.0f, 10001.0f, 10002.0f, 10003.0f}, ones(4, 1.0f), zeros(4);
  Floats y = Garbage(4);
  float mean, rstd;
  LayerNormForward(x.data(), ones.data(), zeros.data(), 1, 4, 0.0f, y.data(), &mean, &rstd);
  EXPECT_NEAR(rstd, 1 / std::sqrt(1.25), 1e-6);
}

TEST(LayerNorm, RejectsNoFeaturesAndBadEps) {
  float v[4] = {};
  EXPECT_THROW(LayerNormForward(v, v, v, 1, 0, 1e-5f, v, v, v), std::invalid_argument);
  EXPECT_THROW(LayerNormForward(v, v, v, 1, 1, -1.0f, v, v, v), std::invalid_argument);
  EXPECT_THROW(LayerNormForward(v, v, v, 1, 1, std::numeric_limits<float>::quiet_NaN(), v, v, v),
               std::invalid_argument);
}

}  // namespace
}  // namespace oar
