// The door to the CUDA runtime: every call and every launch is checked here.

#ifndef OAR_SRC_CUDA_RUNTIME_H_
#define OAR_SRC_CUDA_RUNTIME_H_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "oar/cuda.h"

namespace oar::cuda {

// Throws std::bad_alloc when memory ran out, Error for any other failure of the call `what`.
void Check(cudaError_t status, const char* what);

// Launches `kernel` and checks that it could be; a fault inside of it shows at a later call. The
// arguments are converted to the kernel's parameters here, where the compiler can see both.
template <typename... Parameters>
void Launch(void (*kernel)(Parameters...), const char* name, dim3 grid, dim3 block, Stream stream,
            Parameters... arguments) {
  void* pointers[] = {&arguments...};
  Check(cudaLaunchKernel(kernel, grid, block, pointers, 0, stream), name);
}

// Scratch memory of the current device, freed in the stream's order.
template <typename T>
class Scratch {
 public:
  Scratch(int64_t size, Stream stream)
      : data_(static_cast<T*>(Allocate(static_cast<size_t>(size) * sizeof(T), stream))),
        stream_(stream) {}
  ~Scratch() { Free(data_, stream_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return data_; }

 private:
  T* data_;
  Stream stream_;
};

inline void FillWithZeros(float* data, int64_t size, Stream stream) {
  if (size == 0) return;
  Check(cudaMemsetAsync(data, 0, static_cast<size_t>(size) * sizeof(float), stream),
        "cudaMemsetAsync");
}

inline constexpr int kThreads = 256;  // of a block, unless a kernel says otherwise

// Blocks for n pieces of work: one each, and no more than a kernel that steps by the grid needs to
// keep any GPU busy.
inline dim3 BlocksFor(int64_t n) {
  constexpr int64_t kMost = 1 << 20;
  return dim3(static_cast<unsigned>(std::min(n, kMost)));
}

}  // namespace oar::cuda

#endif  // OAR_SRC_CUDA_RUNTIME_H_
