#include <cmath>

#include "parallel.h"
#include "plans.h"

namespace oar {

void AdamStep(const float* grad, int64_t n, int64_t step, const AdamOptions& options, float* param,
              float* first, float* second) {
  constexpr int64_t kWork = 4;  // of one element, in ThreadsFor's simple operations
  const AdamFactors f = CheckedFactors(n, step, options);
  const float beta1 = f.beta1, beta2 = f.beta2, eps = f.eps;
  const float rate = f.rate, root_scale = f.root_scale;
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
