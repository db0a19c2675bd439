#include <limits>
#include <stdexcept>

#include "oar/oar.h"
#include "reference.h"

namespace oar {
namespace {

TEST(AdamStep, FollowsThePaper) {
  const int64_t n = 1003;
  const AdamOptions options{0.01f, 0.8f, 0.99f, 1e-6f};
  Floats param = Random(n, 1), first(n), second(n);
  Doubles want(param.begin(), param.end()), m(n), v(n);
  for (int step = 1; step <= 5; ++step) {
    const Floats grad = Random(n, 10 + static_cast<unsigned>(step));
    for (int64_t i = 0; i < n; ++i) {
      m[i] = options.beta1 * m[i] + (1 - double{options.beta1}) * grad[i];
      v[i] = options.beta2 * v[i] + (1 - double{options.beta2}) * grad[i] * grad[i];
      const double m_hat = m[i] / (1 - std::pow(double{options.beta1}, step));
      const double v_hat = v[i] / (1 - std::pow(double{options.beta2}, step));
      want[i] -= options.learning_rate * m_hat / (std::sqrt(v_hat) + options.eps);
    }
    AdamStep(grad.data(), n, step, options, param.data(), first.data(), second.data());
  }
  ExpectClose(param, want, 1e-5);
  ExpectClose(first, m, 1e-5);
  ExpectClose(second, v, 1e-5);
}

TEST(AdamStep, RejectsOptionsOutOfRange) {
  float v = 1;
  const auto run = [&](int64_t step, AdamOptions options) {
    AdamStep(&v, 1, step, options, &v, &v, &v);
  };
  EXPECT_THROW(run(0, {}), std::invalid_argument);
  EXPECT_THROW(run(1, {std::numeric_limits<float>::infinity(), 0.9f, 0.9f, 1e-8f}),
               std::invalid_argument);
  EXPECT_THROW(run(1, {1e-3f, 1.0f, 0.9f, 1e-8f}), std::invalid_argument);
  EXPECT_THROW(run(1, {1e-3f, 0.9f, -0.1f, 1e-8f}), std::invalid_argument);
  EXPECT_THROW(run(1, {1e-3f, 0.9f, 0.9f, -1.0f}), std::invalid_argument);
  EXPECT_EQ(v, 1.0f);
}

}  // namespace
}  // namespace oar
