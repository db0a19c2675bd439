#include "../plans.h"
#include "for_each.cuh"

namespace oar::cuda {
namespace adam_kernels {

struct Step {
  AdamFactors f;
  const float* grad;
  float *param, *first, *second;

  __device__ void operator()(int64_t i) const {
    const float mean = f.beta1 * first[i] + (1.0f - f.beta1) * grad[i];
    const float square = f.beta2 * second[i] + (1.0f - f.beta2) * (grad[i] * grad[i]);
    first[i] = mean;
    second[i] = square;
    param[i] -= f.rate * mean / (sqrtf(square) * f.root_scale + f.eps);
  }
};

}  // namespace adam_kernels

using namespace adam_kernels;

void AdamStep(const float* grad, int64_t n, int64_t step, const AdamOptions& options, float* param,
              float* first, float* second, Stream stream) {
  const AdamFactors factors = CheckedFactors(n, step, options);
  ForEach(n, Step{factors, grad, param, first, second}, "AdamStep", stream);
}

}  // namespace oar::cuda
