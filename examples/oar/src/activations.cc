#include "checks.h"
#include "parallel.h"
#include "vector_math.h"

namespace oar {
namespace {

// One element's work, in the simple operations that ThreadsFor counts.
constexpr int64_t kReluWork = 1, kGeluWork = 8;

}  // namespace

void ReluForward(const float* x, int64_t n, float* y) {
  RequireSizes({n});
  ParallelRanges(n, kReluWork, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) y[i] = x[i] < 0.0f ? 0.0f : x[i];
  });
}

void ReluBackward(const float* dy, const float* x, int64_t n, float* dx) {
  RequireSizes({n});
  ParallelRanges(n, kReluWork, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const float gradient = dy[i];  // read in any case, which leaves no branch
      dx[i] = x[i] > 0.0f ? gradient : 0.0f;
    }
  });
}

void GeluForward(const float* x, int64_t n, float* y) {
  RequireSizes({n});
  ParallelRanges(n, kGeluWork, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) y[i] = x[i] * StandardNormal(x[i]).distribution;
  });
}

void GeluBackward(const float* dy, const float* x, int64_t n, float* dx) {
  RequireSizes({n});
  ParallelRanges(n, kGeluWork, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const Normal normal = StandardNormal(x[i]);
      dx[i] = dy[i] * (normal.distribution + x[i] * normal.density);
    }
  });
}

}  // namespace oar
