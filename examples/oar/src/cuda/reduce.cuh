// Sums and maxima: of a block's threads, and over the rows of a matrix. All in a fixed order.

#ifndef OAR_SRC_CUDA_REDUCE_CUH_
#define OAR_SRC_CUDA_REDUCE_CUH_

#include "runtime.h"

namespace oar::cuda {

struct Add {
  __device__ float operator()(float a, float b) const { return a + b; }
};

struct Max {
  __device__ float operator()(float a, float b) const { return b > a ? b : a; }
};

// What `combine` makes of every thread's value, told to all threads of the block. They number a
// power of two, kThreads at most, and all of them must call.
template <typename Combine>
__device__ float ReduceBlock(float value, Combine combine) {
  __shared__ float values[kThreads];
  const unsigned thread = threadIdx.x;
  values[thread] = value;
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (thread < half) values[thread] = combine(values[thread], values[thread + half]);
    __syncthreads();
  }
  const float result = values[0];
  __syncthreads();  // the next call overwrites it
  return result;
}

// Threads of a block that works through `columns` values: a power of two, no more than pay.
inline int ThreadsForRow(int64_t columns) {
  int threads = 32;
  while (threads < kThreads && threads < columns) threads *= 2;
  return threads;
}

constexpr int kSumColumns = 32, kSumRows = 8;  // the threads of a block

// sum[column] = value(row, column) over all rows. A warp reads neighbouring columns; the block's
// other dimension shares the rows.
template <typename Value>
__global__ void SumRowsKernel(Value value, int64_t rows, int64_t columns, float* sum) {
  __shared__ float sums[kSumRows][kSumColumns];
  const int64_t column = int64_t{blockIdx.x} * kSumColumns + threadIdx.x;
  float total = 0.0f;
  if (column < columns) {
    for (int64_t row = threadIdx.y; row < rows; row += kSumRows) total += value(row, column);
  }
  sums[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    for (int part = 1; part < kSumRows; ++part) total += sums[part][threadIdx.x];
    sum[column] = total;
  }
}

template <typename Value>
void SumRows(Value value, int64_t rows, int64_t columns, float* sum, Stream stream) {
  if (columns == 0) return;
  const dim3 grid(static_cast<unsigned>((columns + kSumColumns - 1) / kSumColumns));
  Launch(SumRowsKernel<Value>, "SumRows", grid, dim3(kSumColumns, kSumRows), stream, value, rows,
         columns, sum);
}

}  // namespace oar::cuda

#endif  // OAR_SRC_CUDA_REDUCE_CUH_
