#include "../plans.h"
#include "checks.cuh"
#include "reduce.cuh"

namespace oar::cuda {
namespace embedding_bag_kernels {

constexpr unsigned kWrongStart = 1, kNotAscending = 2, kTooLarge = 4;  // bits of *wrong

template <typename Index>
__global__ void FindWrongOffsets(Bags<Index> bags, unsigned* wrong) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < bags.bags; i += step) {
    if (i == 0 && bags.offsets[0] != 0) atomicOr(wrong, kWrongStart);
    if (i > 0 && bags.offsets[i] < bags.offsets[i - 1]) atomicOr(wrong, kNotAscending);
    if (i == bags.bags - 1 && bags.offsets[i] > bags.count) atomicOr(wrong, kTooLarge);
  }
}

template <typename Index>
void RequireBags(const Bags<Index>& bags, int64_t rows, int64_t dim, Stream stream) {
  RequireSizes({bags.count, bags.bags, rows, dim});
  Require(bags.bags > 0 || bags.count == 0, kOffsetsEmpty);
  if (bags.bags > 0) {
    const Scratch<unsigned> wrong(1, stream);
    Check(cudaMemsetAsync(wrong.data(), 0, sizeof(unsigned), stream), "cudaMemsetAsync");
    Launch(FindWrongOffsets<Index>, "FindWrongOffsets",
           BlocksFor((bags.bags + kThreads - 1) / kThreads), kThreads, stream, bags, wrong.data());
    unsigned found;
    CopyToHost(&found, wrong.data(), sizeof found, stream);
    Require(!(found & kWrongStart), kOffsetsStart);
    Require(!(found & kNotAscending), kOffsetsAscend);
    Require(!(found & kTooLarge), kOffsetsExceed);
  }
  RequireInRange(bags.indices, bags.count, rows, "indices", stream);
}

// A block for each bag, a thread for each column, here and below.
template <typename Index>
__global__ void SumBags(const float* weight, Bags<Index> bags, int64_t dim, BagMode mode,
                        float* y) {
  for (int64_t bag = blockIdx.x; bag < bags.bags; bag += gridDim.x) {
    const int64_t first = bags.offsets[bag], last = BagEnd(bags, bag);
    const float scale = BagScale(mode, last - first);
    for (int64_t j = threadIdx.x; j < dim; j += blockDim.x) {
      float sum = 0.0f;
      for (int64_t i = first; i < last; ++i) sum += weight[bags.indices[i] * dim + j];
      y[bag * dim + j] = sum * scale;
    }
  }
}

template <typename Index>
__global__ void ScatterBags(const float* dy, Bags<Index> bags, int64_t dim, BagMode mode,
                            float* dweight) {
  for (int64_t bag = blockIdx.x; bag < bags.bags; bag += gridDim.x) {
    const int64_t first = bags.offsets[bag], last = BagEnd(bags, bag);
    const float scale = BagScale(mode, last - first);
    for (int64_t j = threadIdx.x; j < dim; j += blockDim.x) {
      const float gradient = scale * dy[bag * dim + j];
      for (int64_t i = first; i < last; ++i) {
        atomicAdd(&dweight[bags.indices[i] * dim + j], gradient);
      }
    }
  }
}

}  // namespace embedding_bag_kernels

using namespace embedding_bag_kernels;

template <typename Index>
void EmbeddingBagForward(const float* weight, const Bags<Index>& bags, int64_t rows, int64_t dim,
                         BagMode mode, float* y, Stream stream) {
  RequireBags(bags, rows, dim, stream);
  if (bags.bags == 0) return;
  Launch(SumBags<Index>, "EmbeddingBag", BlocksFor(bags.bags), ThreadsForRow(dim), stream, weight,
         bags, dim, mode, y);
}

template <typename Index>
void EmbeddingBagBackward(const float* dy, const Bags<Index>& bags, int64_t rows, int64_t dim,
                          BagMode mode, float* dweight, Stream stream) {
  RequireBags(bags, rows, dim, stream);
  FillWithZeros(dweight, rows * dim, stream);
  if (bags.bags == 0) return;
  Launch(ScatterBags<Index>, "EmbeddingBagGradient", BlocksFor(bags.bags), ThreadsForRow(dim),
         stream, dy, bags, dim, mode, dweight);
}

#define OAR_INSTANTIATE(Index)                                                                   \
  template OAR_API void EmbeddingBagForward(const float*, const Bags<Index>&, int64_t, int64_t,  \
                                            BagMode, float*, Stream);                            \
  template OAR_API void EmbeddingBagBackward(const float*, const Bags<Index>&, int64_t, int64_t, \
                                             BagMode, float*, Stream);
OAR_INSTANTIATE(int32_t)
OAR_INSTANTIATE(int64_t)
#undef OAR_INSTANTIATE

}  // namespace oar::cuda
