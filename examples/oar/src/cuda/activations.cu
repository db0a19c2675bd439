#include "../checks.h"
#include "../vector_math.h"
#include "for_each.cuh"

namespace oar::cuda {
namespace activations_kernels {

struct Relu {
  const float* x;
  float* y;
  __device__ void operator()(int64_t i) const { y[i] = x[i] < 0.0f ? 0.0f : x[i]; }
};

struct ReluGradient {
  const float *dy, *x;
  float* dx;
  __device__ void operator()(int64_t i) const { dx[i] = x[i] > 0.0f ? dy[i] : 0.0f; }
};

struct Gelu {
  const float* x;
  float* y;
  __device__ void operator()(int64_t i) const { y[i] = x[i] * StandardNormal(x[i]).distribution; }
};

struct GeluGradient {
  const float *dy, *x;
  float* dx;
  __device__ void operator()(int64_t i) const {
    const Normal normal = StandardNormal(x[i]);
    dx[i] = dy[i] * (normal.distribution + x[i] * normal.density);
  }
};

}  // namespace activations_kernels

using namespace activations_kernels;

void ReluForward(const float* x, int64_t n, float* y, Stream stream) {
  RequireSizes({n});
  ForEach(n, Relu{x, y}, "Relu", stream);
}

void ReluBackward(const float* dy, const float* x, int64_t n, float* dx, Stream stream) {
  RequireSizes({n});
  ForEach(n, ReluGradient{dy, x, dx}, "ReluGradient", stream);
}

void GeluForward(const float* x, int64_t n, float* y, Stream stream) {
  RequireSizes({n});
  ForEach(n, Gelu{x, y}, "Gelu", stream);
}

void GeluBackward(const float* dy, const float* x, int64_t n, float* dx, Stream stream) {
  RequireSizes({n});
  ForEach(n, GeluGradient{dy, x, dx}, "GeluGradient", stream);
}

}  // namespace oar::cuda
