// What kernels derive from their arguments before any element is touched, checks included; CPU and
// GPU share it, so that both refuse the same arguments in the same words.

#ifndef OAR_SRC_PLANS_H_
#define OAR_SRC_PLANS_H_

#include <cmath>
#include <cstdint>
#include <limits>

#include "checks.h"
#include "host_device.h"
#include "oar/oar.h"

namespace oar {

inline void RequireLayerNorm(int64_t batch, int64_t features) {
  RequireSizes({batch, features});
  Require(features > 0, "layer norm needs at least one feature");
}

inline void RequireEps(float eps) {
  Require(eps >= 0.0f && std::isfinite(eps), "eps must be finite and not negative");
}

// ---- Embedding bag

inline constexpr const char* kOffsetsEmpty = "offsets is empty, so indices must be empty too";
inline constexpr const char* kOffsetsStart = "offsets must start at 0";
inline constexpr const char* kOffsetsAscend = "offsets must ascend";
inline constexpr const char* kOffsetsExceed = "offsets must not exceed the number of indices";

template <typename Index>
OAR_HOST_DEVICE int64_t BagEnd(const Bags<Index>& bags, int64_t bag) {
  return bag + 1 < bags.bags ? static_cast<int64_t>(bags.offsets[bag + 1]) : bags.count;
}

OAR_HOST_DEVICE inline float BagScale(BagMode mode, int64_t size) {
  return mode == BagMode::kMean && size > 0 ? 1.0f / static_cast<float>(size) : 1.0f;
}

// ---- Convolution, with K = in_channels * kernel_h * kernel_w and P = out_h * out_w

struct ConvPlan {
  int64_t out_h, out_w;
  int64_t taps;    // kernel_h * kernel_w
  int64_t depth;   // K
  int64_t pixels;  // P
};

inline ConvPlan MakePlan(const Conv2dShape& s) {
  RequireSizes({s.batch, s.in_channels, s.out_channels});
  const Window2d& w = s.window;
  ConvPlan plan;
  plan.out_h = OutputSize(s.height, w.kernel_h, w.stride_h, w.pad_h);
  plan.out_w = OutputSize(s.width, w.kernel_w, w.stride_w, w.pad_w);
  plan.taps = w.kernel_h * w.kernel_w;
  plan.depth = s.in_channels * plan.taps;
  plan.pixels = plan.out_h * plan.out_w;
  return plan;
}

// ---- Pooling

struct PoolOutput {
  int64_t height, width;
};

inline PoolOutput CheckedOutput(const Pool2dShape& s) {
  const Window2d& w = s.window;
  RequireSizes({s.planes});
  const PoolOutput out{OutputSize(s.height, w.kernel_h, w.stride_h, w.pad_h),
                       OutputSize(s.width, w.kernel_w, w.stride_w, w.pad_w)};
  Require(w.pad_h <= w.kernel_h / 2 && w.pad_w <= w.kernel_w / 2,
          "padding must be at most half the kernel");
  Require(s.planes == 0 || (s.height > 0 && s.width > 0), "the input planes have no pixels");
  Require(s.height * s.width <= std::numeric_limits<int32_t>::max(),
          "height * width must be below 2^31");
  return out;
}

// ---- Adam

struct AdamFactors {
  float beta1, beta2, eps;
  float rate;        // the learning rate over the first moment's bias
  float root_scale;  // of the root of the second moment
};

inline AdamFactors CheckedFactors(int64_t n, int64_t step, const AdamOptions& options) {
  const float beta1 = options.beta1, beta2 = options.beta2;
  RequireSizes({n});
  Require(step >= 1, "step counts from 1");
  Require(std::isfinite(options.learning_rate), "the learning rate must be finite");
  Require(beta1 >= 0.0f && beta1 < 1.0f, "beta1 must lie in [0, 1)");
  Require(beta2 >= 0.0f && beta2 < 1.0f, "beta2 must lie in [0, 1)");
  RequireEps(options.eps);
  // The moments start at zero; these undo the bias. In double: 1 - beta2 is close to 0.
  const double t = static_cast<double>(step);
  return {beta1, beta2, options.eps,
          static_cast<float>(options.learning_rate / (1.0 - std::pow(beta1, t))),
          static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(beta2, t)))};
}

}  // namespace oar

#endif  // OAR_SRC_PLANS_H_
