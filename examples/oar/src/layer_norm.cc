#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "plans.h"

namespace oar {
namespace {

constexpr int64_t kWork = 4;  // of one element in one pass, in ThreadsFor's simple operations

}  // namespace

void LayerNormForward(const float* x, const float* gamma, const float* beta, int64_t batch,
                      int64_t features, float eps, float* y, float* mean, float* rstd) {
  RequireLayerNorm(batch, features);
  RequireEps(eps);
  const float scale = 1.0f / static_cast<float>(features);
  ParallelRanges(batch, features * kWork, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* in = x + row * features;
      float* out = y + row * features;
      float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < features; ++j) sum += in[j];
      const float center = sum * scale;
      // A second pass: the difference of two large sums would lose a small variance.
      float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
      for (int64_t j = 0; j < features; ++j) squares += (in[j] - center) * (in[j] - center);
      const float inverse = 1.0f / std::sqrt(squares * scale + eps);
#pragma omp simd
      for (int64_t j = 0; j < features; ++j) {
        out[j] = (in[j] - center) * inverse * gamma[j] + beta[j];
      }
      mean[row] = center;
      rstd[row] = inverse;
    }
  });
}

void LayerNormBackward(const float* dy, const float* x, const float* gamma, const float* mean,
                       const float* rstd, int64_t batch, int64_t features, float* dx, float* dgamma,
                       float* dbeta) {
  RequireLayerNorm(batch, features);
  const float scale = 1.0f / static_cast<float>(features);
  ParallelRanges(batch, features * kWork, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* in = x + row * features;
      const float* grad = dy + row * features;
      float* out = dx + row * features;
      const float center = mean[row], inverse = rstd[row];
      // With normed = (x - mean) * rstd and g = dy * gamma:
      // dx = rstd * (g - mean(g) - normed * mean(g * normed)).
      float sum = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : sum, product)
      for (int64_t j = 0; j < features; ++j) {
        const float g = grad[j] * gamma[j];
        sum += g;
        product += g * (in[j] - center) * inverse;
      }
      const float mean_g = sum * scale, mean_product = product * scale;
#pragma omp simd
      for (int64_t j = 0; j < features; ++j) {
        const float normed = (in[j] - center) * inverse;
        out[j] = inverse * (grad[j] * gamma[j] - mean_g - normed * mean_product);
      }
    }
  });
  // Threads share the features here, so that the order of additions is fixed.
  ParallelRanges(features, batch * kWork, [=](int64_t begin, int64_t end) {
    std::fill(dgamma + begin, dgamma + end, 0.0f);
    std::fill(dbeta + begin, dbeta + end, 0.0f);
    for (int64_t row = 0; row < batch; ++row) {
      const float* in = x + row * features;
      const float* grad = dy + row * features;
      const float center = mean[row], inverse = rstd[row];
#pragma omp simd
      for (int64_t j = begin; j < end; ++j) {
        dgamma[j] += grad[j] * (in[j] - center) * inverse;
        dbeta[j] += grad[j];
      }
    }
  });
}

}  // namespace oar
