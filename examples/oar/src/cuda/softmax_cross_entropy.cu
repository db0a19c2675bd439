#include "../checks.h"
#include "../vector_math.h"
#include "checks.cuh"
#include "for_each.cuh"
#include "reduce.cuh"

namespace oar::cuda {
namespace softmax_kernels {

// A block for each row.
template <typename Index>
__global__ void Softmax(const float* logits, const Index* labels, int64_t batch, int64_t classes,
                        float* loss, float* probabilities) {
  for (int64_t row = blockIdx.x; row < batch; row += gridDim.x) {
    const float* values = logits + row * classes;
    float* p = probabilities + row * classes;
    float highest = -INFINITY;
    for (int64_t j = threadIdx.x; j < classes; j += blockDim.x) highest = Max()(highest, values[j]);
    highest = ReduceBlock(highest, Max());
    float sum = 0.0f;
    for (int64_t j = threadIdx.x; j < classes; j += blockDim.x) {
      p[j] = ExpNonPositive(values[j] - highest);
      sum += p[j];
    }
    sum = ReduceBlock(sum, Add());
    const float scale = 1.0f / sum;
    for (int64_t j = threadIdx.x; j < classes; j += blockDim.x) p[j] *= scale;
    if (threadIdx.x == 0) loss[row] = logf(sum) + highest - values[labels[row]];
  }
}

template <typename Index>
struct SoftmaxGradient {
  const float *dloss, *probabilities;
  const Index* labels;
  int64_t classes;
  float* dlogits;

  __device__ void operator()(int64_t at) const {
    const int64_t row = at / classes;
    const float gradient = dloss[row] * probabilities[at];
    dlogits[at] = at % classes == labels[row] ? gradient - dloss[row] : gradient;
  }
};

}  // namespace softmax_kernels

using namespace softmax_kernels;

template <typename Index>
void SoftmaxCrossEntropyForward(const float* logits, const Index* labels, int64_t batch,
                                int64_t classes, float* loss, float* probabilities, Stream stream) {
  RequireSizes({batch, classes});
  RequireInRange(labels, batch, classes, "labels", stream);
  if (batch == 0) return;
  Launch(Softmax<Index>, "Softmax", BlocksFor(batch), ThreadsForRow(classes), stream, logits,
         labels, batch, classes, loss, probabilities);
}

template <typename Index>
void SoftmaxCrossEntropyBackward(const float* dloss, const float* probabilities,
                                 const Index* labels, int64_t batch, int64_t classes,
                                 float* dlogits, Stream stream) {
  RequireSizes({batch, classes});
  RequireInRange(labels, batch, classes, "labels", stream);
  ForEach(batch * classes, SoftmaxGradient<Index>{dloss, probabilities, labels, classes, dlogits},
          "SoftmaxGradient", stream);
}

#define OAR_INSTANTIATE(Index)                                                                   \
  template OAR_API void SoftmaxCrossEntropyForward(const float*, const Index*, int64_t, int64_t, \
                                                   float*, float*, Stream);                      \
  template OAR_API void SoftmaxCrossEntropyBackward(const float*, const float*, const Index*,    \
                                                    int64_t, int64_t, float*, Stream);
OAR_INSTANTIATE(int32_t)
OAR_INSTANTIATE(int64_t)
#undef OAR_INSTANTIATE

}  // namespace oar::cuda
