// Oar on a GPU: the kernels of oar.h under the same names, in oar::cuda.
//
// What differs from oar.h:
//   * Arrays are device memory of the current device, small structs like Bags included: their
//     pointers are the device's. Sizes of matrices, planes and pixels are below 2^30.
//   * Work is enqueued on `stream`, null being the legacy default stream, and may still run when a
//     function returns. Kernels that look at indices, labels or positions wait for that look, since
//     a wrong one throws std::out_of_range as on the CPU, and outputs are untouched then.
//   * A failed CUDA call throws Error; std::bad_alloc is thrown when device memory runs out.
//   * Sums run in another order than on the CPU, so results differ in the last digits. Of two calls
//     with the same arguments they are equal bit for bit, but for EmbeddingBagBackward and
//     MaxPool2dBackward, which scatter with atomic additions.
//
// There is no such function in a build without CUDA, which oar::GetBuildInfo().cuda_archs tells.
// Everything here can be called on a machine without a GPU, and throws Error there; DeviceCount and
// WhyUnavailable do not throw.

#ifndef OAR_CUDA_H_
#define OAR_CUDA_H_

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "oar/oar.h"

struct CUstream_st;
struct CUevent_st;

namespace oar::cuda {

using Stream = CUstream_st*;  // cudaStream_t, without the toolkit's header
using Event = CUevent_st*;    // cudaEvent_t

class OAR_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// ---- Devices and their memory

// How many GPUs this process may use; 0 where there is no driver or no GPU.
OAR_API int DeviceCount();

// Why no kernel can run on the current device, in one sentence without a full stop; empty where one
// can: a GPU is there, and this build has code for it.
OAR_API std::string WhyUnavailable();

// Name of a device as its driver tells it, e.g. "NVIDIA H100 80GB HBM3".
OAR_API std::string DeviceName(int device);

// Makes a device the calling thread's current one, and the former one again at its end.
class OAR_API DeviceScope {
 public:
  explicit DeviceScope(int device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0;
};

// Memory of the current device, usable by what is enqueued on `stream` from now on, and null for
// zero bytes. It comes from a pool of Oar's own, which keeps up to 256 MiB of what was freed.
OAR_API void* Allocate(size_t bytes, Stream stream);

// Gives memory back once all that is enqueued on `stream` so far has run. Never throws: at the end
// of a process the driver may be gone already.
OAR_API void Free(void* data, Stream stream) noexcept;

// Copy between host and device, and wait until it is done.
OAR_API void CopyToDevice(void* to, const void* from, size_t bytes, Stream stream);
OAR_API void CopyToHost(void* to, const void* from, size_t bytes, Stream stream);

// Wait until what is enqueued on a stream, or on the whole current device, has run.
OAR_API void Synchronize(Stream stream);
OAR_API void SynchronizeDevice();

// A point in what is enqueued on a stream, for another stream to wait for.
OAR_API Event Record(Stream stream);
OAR_API void Wait(Stream stream, Event event);
OAR_API void Destroy(Event event) noexcept;

// ---- The kernels; oar.h says what each computes and what it throws

OAR_API void LinearForward(const float* x, const float* weight, const float* bias, int64_t batch,
                           int64_t in, int64_t out, float* y, Stream stream = nullptr);

OAR_API void LinearBackward(const float* dy, const float* x, const float* weight, int64_t batch,
                            int64_t in, int64_t out, float* dx, float* dweight, float* dbias,
                            Stream stream = nullptr);

OAR_API void ReluForward(const float* x, int64_t n, float* y, Stream stream = nullptr);

OAR_API void ReluBackward(const float* dy, const float* x, int64_t n, float* dx,
                          Stream stream = nullptr);

OAR_API void GeluForward(const float* x, int64_t n, float* y, Stream stream = nullptr);

OAR_API void GeluBackward(const float* dy, const float* x, int64_t n, float* dx,
                          Stream stream = nullptr);

template <typename Index>
OAR_API void SoftmaxCrossEntropyForward(const float* logits, const Index* labels, int64_t batch,
                                        int64_t classes, float* loss, float* probabilities,
                                        Stream stream = nullptr);

template <typename Index>
OAR_API void SoftmaxCrossEntropyBackward(const float* dloss, const float* probabilities,
                                         const Index* labels, int64_t batch, int64_t classes,
                                         float* dlogits, Stream stream = nullptr);

OAR_API void LayerNormForward(const float* x, const float* gamma, const float* beta, int64_t batch,
                              int64_t features, float eps, float* y, float* mean, float* rstd,
                              Stream stream = nullptr);

OAR_API void LayerNormBackward(const float* dy, const float* x, const float* gamma,
                               const float* mean, const float* rstd, int64_t batch,
                               int64_t features, float* dx, float* dgamma, float* dbeta,
                               Stream stream = nullptr);

template <typename Index>
OAR_API void EmbeddingBagForward(const float* weight, const Bags<Index>& bags, int64_t rows,
                                 int64_t dim, BagMode mode, float* y, Stream stream = nullptr);

template <typename Index>
OAR_API void EmbeddingBagBackward(const float* dy, const Bags<Index>& bags, int64_t rows,
                                  int64_t dim, BagMode mode, float* dweight,
                                  Stream stream = nullptr);

OAR_API void Conv2dForward(const float* x, const float* weight, const float* bias,
                           const Conv2dShape& shape, float* y, Stream stream = nullptr);

OAR_API void Conv2dBackward(const float* dy, const float* x, const float* weight,
                            const Conv2dShape& shape, float* dx, float* dweight, float* dbias,
                            Stream stream = nullptr);

OAR_API void MaxPool2dForward(const float* x, const Pool2dShape& shape, float* y,
                              int32_t* positions, Stream stream = nullptr);

OAR_API void MaxPool2dBackward(const float* dy, const int32_t* positions, int64_t planes,
                               int64_t windows, int64_t pixels, float* dx, Stream stream = nullptr);

OAR_API void AdamStep(const float* grad, int64_t n, int64_t step, const AdamOptions& options,
                      float* param, float* first, float* second, Stream stream = nullptr);

}  // namespace oar::cuda

#endif  // OAR_CUDA_H_
