// One thread for each of n independent elements.

#ifndef OAR_SRC_CUDA_FOR_EACH_CUH_
#define OAR_SRC_CUDA_FOR_EACH_CUH_

#include "runtime.h"

namespace oar::cuda {

template <typename Body>
__global__ void ForEachKernel(int64_t n, Body body) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) body(i);
}

// Runs body(i) for each i in [0, n); `name` is for the error message.
template <typename Body>
void ForEach(int64_t n, Body body, const char* name, Stream stream) {
  if (n == 0) return;
  Launch(ForEachKernel<Body>, name, BlocksFor((n + kThreads - 1) / kThreads), kThreads, stream, n,
         body);
}

}  // namespace oar::cuda

#endif  // OAR_SRC_CUDA_FOR_EACH_CUH_
