#include "../plans.h"
#include "reduce.cuh"

namespace oar::cuda {
namespace layer_norm_kernels {

// A block for each row, here and below.
__global__ void Normalise(const float* x, const float* gamma, const float* beta, int64_t batch,
                          int64_t features, float eps, float* y, float* mean, float* rstd) {
  const float scale = 1.0f / static_cast<float>(features);
  for (int64_t row = blockIdx.x; row < batch; row += gridDim.x) {
    const float* in = x + row * features;
    float* out = y + row * features;
    float sum = 0.0f;
    for (int64_t j = threadIdx.x; j < features; j += blockDim.x) sum += in[j];
    const float center = ReduceBlock(sum, Add()) * scale;
    // A second pass: the difference of two large sums would lose a small variance.
    float squares = 0.0f;
    for (int64_t j = threadIdx.x; j < features; j += blockDim.x) {
      squares += (in[j] - center) * (in[j] - center);
    }
    const float inverse = 1.0f / sqrtf(ReduceBlock(squares, Add()) * scale + eps);
    for (int64_t j = threadIdx.x; j < features; j += blockDim.x) {
      out[j] = (in[j] - center) * inverse * gamma[j] + beta[j];
    }
    if (threadIdx.x == 0) {
      mean[row] = center;
      rstd[row] = inverse;
    }
  }
}

__global__ void InputGradient(const float* dy, const float* x, const float* gamma,
                              const float* mean, const float* rstd, int64_t batch, int64_t features,
                              float* dx) {
  const float scale = 1.0f / static_cast<float>(features);
  for (int64_t row = blockIdx.x; row < batch; row += gridDim.x) {
    const float* in = x + row * features;
    const float* grad = dy + row * features;
    float* out = dx + row * features;
    const float center = mean[row], inverse = rstd[row];
    // The formula stands in ../layer_norm.cc.
    float sum = 0.0f, product = 0.0f;
    for (int64_t j = threadIdx.x; j < features; j += blockDim.x) {
      const float g = grad[j] * gamma[j];
      sum += g;
      product += g * (in[j] - center) * inverse;
    }
    const float mean_g = ReduceBlock(sum, Add()) * scale;
    const float mean_product = ReduceBlock(product, Add()) * scale;
    for (int64_t j = threadIdx.x; j < features; j += blockDim.x) {
      const float normed = (in[j] - center) * inverse;
      out[j] = inverse * (grad[j] * gamma[j] - mean_g - normed * mean_product);
    }
  }
}

struct GammaGradient {
  const float *dy, *x, *mean, *rstd;
  int64_t features;

  __device__ float operator()(int64_t row, int64_t column) const {
    const int64_t at = row * features + column;
    return dy[at] * (x[at] - mean[row]) * rstd[row];
  }
};

struct BetaGradient {
  const float* dy;
  int64_t features;

  __device__ float operator()(int64_t row, int64_t column) const {
    return dy[row * features + column];
  }
};

}  // namespace layer_norm_kernels

using namespace layer_norm_kernels;

void LayerNormForward(const float* x, const float* gamma, const float* beta, int64_t batch,
                      int64_t features, float eps, float* y, float* mean, float* rstd,
                      Stream stream) {
  RequireLayerNorm(batch, features);
  RequireEps(eps);
  if (batch == 0) return;
  Launch(Normalise, "LayerNorm", BlocksFor(batch), ThreadsForRow(features), stream, x, gamma, beta,
         batch, features, eps, y, mean, rstd);
}

void LayerNormBackward(const float* dy, const float* x, const float* gamma, const float* mean,
                       const float* rstd, int64_t batch, int64_t features, float* dx, float* dgamma,
                       float* dbeta, Stream stream) {
  RequireLayerNorm(batch, features);
  if (batch > 0) {
    Launch(InputGradient, "LayerNormGradient", BlocksFor(batch), ThreadsForRow(features), stream,
           dy, x, gamma, mean, rstd, batch, features, dx);
  }
  SumRows(GammaGradient{dy, x, mean, rstd, features}, batch, features, dgamma, stream);
  SumRows(BetaGradient{dy, features}, batch, features, dbeta, stream);
}

}  // namespace oar::cuda
