// What the tests share: random input, plain reference loops in double, comparison.

#ifndef OAR_TESTS_CPP_REFERENCE_H_
#define OAR_TESTS_CPP_REFERENCE_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace oar {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

inline Floats Random(int64_t n, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  Floats values(static_cast<size_t>(n));
  for (float& value : values) value = normal(engine);
  return values;
}

// Garbage for outputs, which the kernels must overwrite.
inline Floats Garbage(int64_t n) { return Floats(static_cast<size_t>(n), 1e30f); }

inline void ExpectClose(const Floats& got, const Doubles& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], tolerance * (1.0 + std::fabs(want[i]))) << "at element " << i;
  }
}

}  // namespace oar

#endif  // OAR_TESTS_CPP_REFERENCE_H_
