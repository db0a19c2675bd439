#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "runtime.h"

namespace oar::cuda {
namespace runtime_parts {

// Asked for by WhyUnavailable: whether the build has code for a device shows at any kernel.
__global__ void Probe() {}

// Memory pools, one for each device, made when first needed and never destroyed: arrays may outlive
// every static object.
cudaMemPool_t Pool() {
  static std::mutex mutex;
  static auto* const pools = new std::vector<cudaMemPool_t>;
  int device = 0;
  Check(cudaGetDevice(&device), "cudaGetDevice");
  const std::lock_guard<std::mutex> locked(mutex);
  if (pools->size() <= static_cast<size_t>(device)) pools->resize(device + 1, nullptr);
  cudaMemPool_t& pool = (*pools)[device];
  if (pool == nullptr) {
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    Check(cudaMemPoolCreate(&pool, &properties), "cudaMemPoolCreate");
    uint64_t kept = uint64_t{256} << 20;
    Check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept),
          "cudaMemPoolSetAttribute");
  }
  return pool;
}

std::string Words(cudaError_t status) {
  return std::string(cudaGetErrorString(status)) + " (" + cudaGetErrorName(status) + ")";
}

}  // namespace runtime_parts

using namespace runtime_parts;

void Check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // or a later call, in another library perhaps, would be blamed for it
  if (status == cudaErrorMemoryAllocation) throw std::bad_alloc();
  throw Error(std::string("CUDA: ") + what + ": " + Words(status));
}

int DeviceCount() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  (void)cudaGetLastError();
  return 0;
}

std::string WhyUnavailable() {
  int count = 0;
  cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    (void)cudaGetLastError();
    if (driver == 0) return "there is no NVIDIA driver on this machine (libcuda.so.1)";
    const auto text = [](int v) {
      return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
    };
    return "the NVIDIA driver is for CUDA " + text(driver) + ", and this build needs " +
           text(runtime);
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
    (void)cudaGetLastError();
    return "the NVIDIA driver finds no GPU that this process may use";
  }
  cudaFuncAttributes attributes;
  if (status == cudaSuccess) status = cudaFuncGetAttributes(&attributes, Probe);
  if (status == cudaSuccess) return "";
  (void)cudaGetLastError();
  if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorUnsupportedPtxVersion) {
    std::string archs;
    for (const std::string& arch : GetBuildInfo().cuda_archs) archs += " " + arch;
    return "this build has no code for the GPU, only for" + archs;
  }
  return "CUDA does not start: " + Words(status);
}

std::string DeviceName(int device) {
  cudaDeviceProp properties;
  Check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  return properties.name;
}

DeviceScope::DeviceScope(int device) {
  Check(cudaGetDevice(&before_), "cudaGetDevice");
  Check(cudaSetDevice(device), "cudaSetDevice");
}

DeviceScope::~DeviceScope() { (void)cudaSetDevice(before_); }

void* Allocate(size_t bytes, Stream stream) {
  if (bytes == 0) return nullptr;
  void* data = nullptr;
  Check(cudaMallocFromPoolAsync(&data, bytes, Pool(), stream), "cudaMallocFromPoolAsync");
  return data;
}

void Free(void* data, Stream stream) noexcept {
  if (data != nullptr && cudaFreeAsync(data, stream) != cudaSuccess) (void)cudaGetLastError();
}

void CopyToDevice(void* to, const void* from, size_t bytes, Stream stream) {
  if (bytes == 0) return;
  Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
  Synchronize(stream);
}

void CopyToHost(void* to, const void* from, size_t bytes, Stream stream) {
  if (bytes == 0) return;
  Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync");
  Synchronize(stream);
}

void Synchronize(Stream stream) { Check(cudaStreamSynchronize(stream), "cudaStreamSynchronize"); }

void SynchronizeDevice() { Check(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }

Event Record(Stream stream) {
  cudaEvent_t event = nullptr;
  Check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  const cudaError_t status = cudaEventRecord(event, stream);
  if (status != cudaSuccess) Destroy(event);
  Check(status, "cudaEventRecord");
  return event;
}

void Wait(Stream stream, Event event) {
  Check(cudaStreamWaitEvent(stream, event, 0), "cudaStreamWaitEvent");
}

void Destroy(Event event) noexcept {
  if (event != nullptr && cudaEventDestroy(event) != cudaSuccess) (void)cudaGetLastError();
}

}  // namespace oar::cuda
