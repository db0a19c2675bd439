#include <limits>

#include "oar/oar.h"
#include "reference.h"

namespace oar {
namespace {

double Phi(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
double Density(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0)); }

// -20 to 20 in steps that are no round numbers; the odd count leaves a tail after every width.
Floats Ramp() {
  Floats x;
  for (int i = -1237; i <= 1237; ++i) x.push_back(static_cast<float>(i) * 0.0161803f);
  return x;
}

TEST(Relu, ForwardAndBackward) {
  const Floats x{-2, -0.0f, 0, 3, 5}, dy{1, 2, 3, 4, 5};
  Floats y = Garbage(5), dx = Garbage(5);
  ReluForward(x.data(), 5, y.data());
  ReluBackward(dy.data(), x.data(), 5, dx.data());
  EXPECT_EQ(y, (Floats{0, 0, 0, 3, 5}));
  EXPECT_EQ(dx, (Floats{0, 0, 0, 4, 5}));
}

TEST(Relu, KeepsNan) {
  const Floats x(17, std::numeric_limits<float>::quiet_NaN());
  Floats y = Garbage(17);
  ReluForward(x.data(), 17, y.data());
  for (float value : y) EXPECT_TRUE(std::isnan(value));
}

TEST(Gelu, ForwardIsAsAccurateAsDocumented) {
  const Floats x = Ramp();
  Floats y = Garbage(static_cast<int64_t>(x.size()));
  GeluForward(x.data(), static_cast<int64_t>(x.size()), y.data());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(y[i], x[i] * Phi(x[i]), 2e-7 * (1.0 + std::fabs(x[i]))) << "x = " << x[i];
  }
}

TEST(Gelu, BackwardMatchesTheDerivative) {
  const Floats x = Ramp(), dy(x.size(), 3.0f);
  Floats dx = Garbage(static_cast<int64_t>(x.size()));
  GeluBackward(dy.data(), x.data(), static_cast<int64_t>(x.size()), dx.data());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(dx[i], 3.0 * (Phi(x[i]) + x[i] * Density(x[i])), 3e-6) << "x = " << x[i];
  }
}

TEST(Gelu, KeepsNanAndInfinity) {
  const float infinity = std::numeric_limits<float>::infinity();
  Floats x(16, infinity), y = Garbage(16);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  GeluForward(x.data(), 16, y.data());
  EXPECT_TRUE(std::isnan(y[3]));
  EXPECT_EQ(y[0], infinity);
}

}  // namespace
}  // namespace oar
