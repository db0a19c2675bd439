#include <cmath>

#include "checks.h"
#include "parallel.h"

namespace oar {

void AdamStep(const float* grad, int64_t n, int64_t step, const AdamOptions& options, float* param,
              float* first, float* second) {
  constexpr int64_t kWork = 4;  // of one element, in ThreadsFor's simple operations
  const float beta1 = options.beta1, beta2 = options.beta2, eps = options.eps;
  RequireSizes({n});
  Require(step >= 1, "step counts from 1");
  Require(std::isfinite(options.learning_rate), "the learning rate must be finite");
  Require(beta1 >= 0.0f && beta1 < 1.0f, "beta1 must lie in [0, 1)");
  Require(beta2 >= 0.0f && beta2 < 1.0f, "beta2 must lie in [0, 1)");
  Require(eps >= 0.0f && std::isfinite(eps), "eps must be finite and not negative");
  // The moments start at zero; these undo the bias. In double: 1 - beta2 is close to 0.
  const double t = static_cast<double>(step);
  const float rate = static_cast<float>(options.learning_rate / (1.0 - std::pow(beta1, t)));
  const float root_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(beta2, t)));
  ParallelRanges(n, kWork, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      first[i] = beta1 * first[i] + (1.0f - beta1) * grad[i];
      second[i] = beta2 * second[i] + (1.0f - beta2) * (grad[i] * grad[i]);
      param[i] -= rate * first[i] / (std::sqrt(second[i]) * root_scale + eps);
    }
  });
}

}  // namespace oar
