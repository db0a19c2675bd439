// Checks of what only the device can see: each looks at all values at once, and the host waits for
// its answer.

#ifndef OAR_SRC_CUDA_CHECKS_CUH_
#define OAR_SRC_CUDA_CHECKS_CUH_

#include <stdexcept>
#include <string>

#include "runtime.h"

namespace oar::cuda {

using Place = unsigned long long;  // what atomicMin takes; an index into an array

// Lowers *first to the first i for which values[i] lies outside [0, limit).
template <typename Index>
__global__ void FindOutside(const Index* values, int64_t count, int64_t limit, Place* first) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    if (values[i] < 0 || values[i] >= limit) atomicMin(first, static_cast<Place>(i));
  }
}

// The twin of oar::RequireInRange, which has the message.
template <typename Index>
void RequireInRange(const Index* values, int64_t count, int64_t limit, const char* name,
                    Stream stream) {
  if (count == 0) return;
  const Scratch<Place> first(1, stream);
  Check(cudaMemsetAsync(first.data(), 0xff, sizeof(Place), stream), "cudaMemsetAsync");
  Launch(FindOutside<Index>, "FindOutside", BlocksFor((count + kThreads - 1) / kThreads), kThreads,
         stream, values, count, limit, first.data());
  Place found;
  CopyToHost(&found, first.data(), sizeof found, stream);
  if (found >= static_cast<Place>(count)) return;
  Index value;
  CopyToHost(&value, values + found, sizeof value, stream);
  throw std::out_of_range(std::string(name) + "[" + std::to_string(found) + "] is " +
                          std::to_string(value) + ", outside [0, " + std::to_string(limit) + ")");
}

}  // namespace oar::cuda

#endif  // OAR_SRC_CUDA_CHECKS_CUH_
