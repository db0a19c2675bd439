// Enough of CUDA's runtime to run Oar's kernels on the CPU, so that their arithmetic, their indices
// and their barriers are tested on machines without a GPU. It says nothing about a GPU itself.
//
// The .cu files are compiled as C++ with this header in the place of the toolkit's. A kernel's
// blocks run one after the other, a block's threads as coroutines that hand over at __syncthreads.
// Between two barriers they run in ascending order, then in descending order, and so on: where a
// barrier is missing, a thread reads what another has not written yet.

#ifndef OAR_TESTS_CPP_EMULATED_CUDA_RUNTIME_H_
#define OAR_TESTS_CPP_EMULATED_CUDA_RUNTIME_H_

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <utility>
#include <vector>

#include "oar/cuda.h"

// ---- The language

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct alignas(16) float4 {
  float x, y, z, w;
};

inline dim3 gridDim, blockDim, blockIdx, threadIdx;

using std::max;
using std::min;

template <typename T>
T atomicAdd(T* at, T value) {
  return std::exchange(*at, *at + value);
}

template <typename T>
T atomicMin(T* at, T value) {
  return std::exchange(*at, std::min(*at, value));
}

template <typename T>
T atomicOr(T* at, T value) {
  return std::exchange(*at, *at | value);
}

namespace emulated {

struct Thread {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(64 << 10);
  dim3 index;
  bool is_done = false;
};

inline ucontext_t scheduler;
inline Thread* running = nullptr;
inline std::function<void()> body;

inline void Enter() {
  body();
  running->is_done = true;
}

inline void RunBlock() {
  static std::deque<Thread> threads;  // their stacks are kept from block to block
  const unsigned count = blockDim.x * blockDim.y * blockDim.z;
  if (threads.size() < count) threads.resize(count);
  for (unsigned t = 0; t < count; ++t) {
    Thread& thread = threads[t];
    thread.is_done = false;
    thread.index = dim3(t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = thread.stack.size();
    thread.context.uc_link = &scheduler;
    makecontext(&thread.context, Enter, 0);
  }
  bool is_any_left = true;
  for (bool ascending = true; is_any_left; ascending = !ascending) {
    is_any_left = false;
    for (unsigned t = 0; t < count; ++t) {
      Thread& thread = threads[ascending ? t : count - 1 - t];
      if (thread.is_done) continue;
      running = &thread;
      threadIdx = thread.index;
      swapcontext(&scheduler, &thread.context);
      is_any_left = is_any_left || !thread.is_done;
    }
  }
}

}  // namespace emulated

inline void __syncthreads() { swapcontext(&emulated::running->context, &emulated::scheduler); }

// ---- The runtime, with one device, whose memory is the host's

using cudaStream_t = oar::cuda::Stream;
using cudaEvent_t = oar::cuda::Event;
using cudaMemPool_t = void*;

enum cudaError_t {
  cudaSuccess,
  cudaErrorMemoryAllocation,
  cudaErrorInvalidConfiguration,
  cudaErrorInsufficientDriver,
  cudaErrorNoDevice,
  cudaErrorNoKernelImageForDevice,
  cudaErrorUnsupportedPtxVersion
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum { cudaMemAllocationTypePinned, cudaMemLocationTypeDevice, cudaMemPoolAttrReleaseThreshold };
enum { cudaEventDisableTiming };

struct cudaMemPoolProps {
  int allocType;
  struct {
    int type, id;
  } location;
};
struct cudaFuncAttributes {};
struct cudaDeviceProp {
  char name[256];
};

inline const char* cudaGetErrorString(cudaError_t) { return "an emulated error"; }
inline const char* cudaGetErrorName(cudaError_t) { return "emulated"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 0, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 0, cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorNoDevice;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::strcpy(properties->name, "emulated on the CPU");
  return cudaSuccess;
}
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, void (*)()) { return cudaSuccess; }
inline cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  static char only;
  return *pool = &only, cudaSuccess;
}
inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, int, void*) { return cudaSuccess; }
inline cudaError_t cudaMallocFromPoolAsync(void** data, size_t bytes, cudaMemPool_t, cudaStream_t) {
  *data = std::malloc(bytes);
  if (*data == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*data, 0x7b, bytes);  // 1.3e36 as floats: memory that no kernel wrote shows
  return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* data, cudaStream_t) { return std::free(data), cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t) {
  return std::memset(data, value, bytes), cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, int) {
  return *event = nullptr, cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, int) { return cudaSuccess; }

template <typename... Parameters, size_t... kAt>
void CallKernel(void (*kernel)(Parameters...), void** arguments, std::index_sequence<kAt...>) {
  kernel(*static_cast<Parameters*>(arguments[kAt])...);
}

// The limits are those of every GPU since compute capability 3.0.
template <typename... Parameters>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, void** arguments,
                             size_t, cudaStream_t) {
  const unsigned threads = block.x * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x >= 1u << 31 || grid.y >= 1u << 16 ||
      grid.z >= 1u << 16 || threads == 0 || threads > 1024) {
    return cudaErrorInvalidConfiguration;
  }
  emulated::body = [&] { CallKernel(kernel, arguments, std::index_sequence_for<Parameters...>()); };
  gridDim = grid;
  blockDim = block;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        emulated::RunBlock();
      }
    }
  }
  return cudaSuccess;
}

#endif  // OAR_TESTS_CPP_EMULATED_CUDA_RUNTIME_H_
