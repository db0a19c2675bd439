// Mathematics without branches or calls, so that a loop around it vectorises on every ISA.

#ifndef OAR_SRC_VECTOR_MATH_H_
#define OAR_SRC_VECTOR_MATH_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace oar {

// exp(x) for x <= 0, within 2 units in the last place; 0 where the result would be subnormal. The
// reduction and the polynomial are those of Cephes' expf (Moshier, 1992).
OAR_HOST_DEVICE inline float ExpNonPositive(float x) {
  constexpr float kLowest = -87.33f;  // just above log of the smallest normal number
  const float clamped = x < kLowest ? kLowest : x;
  // Adding 1.5 * 2^23 leaves x / log(2), rounded to a whole number, in the mantissa's low bits.
  constexpr float kRounder = 12582912.0f;
  const float rounded = clamped * 1.44269504f + kRounder;
  const float n = rounded - kRounder;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float mantissa = p * (r * r) + r + 1.0f;
  uint32_t bits;
  std::memcpy(&bits, &rounded, sizeof bits);
  bits = (bits + 127u) << 23;  // 2^n
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return x < kLowest ? 0.0f : mantissa * scale;
}

struct Normal {
  float distribution;  // Phi(x)
  float density;       // phi(x)
};

// The standard normal distribution at x, by Abramowitz and Stegun 7.1.26; one exponential serves
// both the distribution and the density.
OAR_HOST_DEVICE inline Normal StandardNormal(float x) {
  const float z = std::fabs(x) * 0.70710678f;
  const float t = 1.0f / (1.0f + 0.3275911f * z);
  const float e = ExpNonPositive(-z * z);
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const float tail = 0.5f * p * t * e;
  return {x < 0.0f ? tail : 1.0f - tail, 0.39894228f * e};
}

}  // namespace oar

#endif  // OAR_SRC_VECTOR_MATH_H_
