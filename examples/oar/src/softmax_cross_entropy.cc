#include <cmath>
#include <limits>

#include "checks.h"
#include "parallel.h"
#include "vector_math.h"

namespace oar {
namespace {

constexpr int64_t kExpWork = 6;  // of one exponential, in ThreadsFor's simple operations

// Writes the softmax of one row, and returns the logarithm of its normaliser: the loss for label l
// is that less logits[l].
float Softmax(const float* logits, int64_t classes, float* probabilities) {
  float highest = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : highest)
  for (int64_t j = 0; j < classes; ++j) highest = logits[j] > highest ? logits[j] : highest;
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < classes; ++j) {
    probabilities[j] = ExpNonPositive(logits[j] - highest);
    sum += probabilities[j];
  }
  const float scale = 1.0f / sum;
#pragma omp simd
  for (int64_t j = 0; j < classes; ++j) probabilities[j] *= scale;
  return std::log(sum) + highest;
}

}  // namespace

template <typename Index>
void SoftmaxCrossEntropyForward(const float* logits, const Index* labels, int64_t batch,
                                int64_t classes, float* loss, float* probabilities) {
  RequireSizes({batch, classes});
  RequireInRange(labels, batch, classes, "labels");
  ParallelRanges(batch, classes * kExpWork, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* values = logits + row * classes;
      loss[row] = Softmax(values, classes, probabilities + row * classes) - values[labels[row]];
    }
  });
}

template <typename Index>
void SoftmaxCrossEntropyBackward(const float* dloss, const float* probabilities,
                                 const Index* labels, int64_t batch, int64_t classes,
                                 float* dlogits) {
  RequireSizes({batch, classes});
  RequireInRange(labels, batch, classes, "labels");
  ParallelRanges(batch, classes, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* p = probabilities + row * classes;
      float* d = dlogits + row * classes;
#pragma omp simd
      for (int64_t j = 0; j < classes; ++j) d[j] = dloss[row] * p[j];
      d[labels[row]] -= dloss[row];
    }
  });
}

#define OAR_INSTANTIATE(Index)                                                                   \
  template OAR_API void SoftmaxCrossEntropyForward(const float*, const Index*, int64_t, int64_t, \
                                                   float*, float*);                              \
  template OAR_API void SoftmaxCrossEntropyBackward(const float*, const float*, const Index*,    \
                                                    int64_t, int64_t, float*);
OAR_INSTANTIATE(int32_t)
OAR_INSTANTIATE(int64_t)
#undef OAR_INSTANTIATE

}  // namespace oar
