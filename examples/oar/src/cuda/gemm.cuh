// The matrix product under linear and convolution: C[m, n] = A[m, k] * B[k, n].
//
// A, B and C are functors, so a convolution's columns are read where they stand in the image, and
// no kernel makes a copy of them. A block computes a square tile of C: all its threads bring a
// slice of A and B, kDepth deep, into shared memory, then each multiplies its own rows and columns
// of it in registers while the next slice is on its way.
//
// An operand has
//   kAlongDepth         whether neighbours along k, and not along m or n, are neighbours in memory
//   Line At(int i)      what can be worked out once for row i of A, or column i of B
//   float Load(Line, p) its element at depth p
// and C has Store(i, j, value).

#ifndef OAR_SRC_CUDA_GEMM_CUH_
#define OAR_SRC_CUDA_GEMM_CUH_

#include <algorithm>

#include "../checks.h"
#include "divisor.h"
#include "runtime.h"

namespace oar::cuda {

constexpr int kDepth = 16;
constexpr int kSide = 16;  // a block is kSide * kSide threads
static_assert(kSide * kSide == kThreads);

// A slice of an operand, kTile lines by kDepth, on its way from global to shared memory.
template <int kTile, typename Operand>
class Slice {
 public:
  __device__ Slice(const Operand& operand, int first, int limit) : operand_(operand) {
    for (int s = 0; s < kLines; ++s) {
      const int line = first + LineOf(s);
      is_inside_[s] = line < limit;
      lines_[s] = operand.At(is_inside_[s] ? line : limit - 1);
    }
  }

  __device__ void Fetch(int begin, int end) {
#pragma unroll
    for (int s = 0; s < kLoads; ++s) {
      const int p = begin + DepthOf(s), line = kLines == 1 ? 0 : s;
      values_[s] = is_inside_[line] && p < end ? operand_.Load(lines_[line], p) : 0.0f;
    }
  }

  __device__ void Put(float (*tile)[kTile + 4]) const {
#pragma unroll
    for (int s = 0; s < kLoads; ++s) tile[DepthOf(s)][LineOf(s)] = values_[s];
  }

 private:
  static constexpr int kLoads = kTile * kDepth / kThreads;
  static constexpr int kLines = Operand::kAlongDepth ? kLoads : 1;

  // Consecutive threads take consecutive elements in memory.
  __device__ static int LineOf(int s) {
    const int thread = threadIdx.x;
    return Operand::kAlongDepth ? thread / kDepth + s * (kThreads / kDepth) : thread % kTile;
  }
  __device__ static int DepthOf(int s) {
    const int thread = threadIdx.x;
    return Operand::kAlongDepth ? thread % kDepth : thread / kTile + s * (kThreads / kTile);
  }

  Operand operand_;
  typename Operand::Line lines_[kLines];
  bool is_inside_[kLines];
  float values_[kLoads];
};

// blockIdx.x counts the tiles of C, row by row; blockIdx.y the parts into which k is cut. With more
// than one, each part's product goes to parts[blockIdx.y][m][n].
template <int kTile, typename A, typename B, typename C>
__global__ void __launch_bounds__(kThreads, 2)
    GemmKernel(int m, int n, int k, int part_depth, A a, B b, C c, float* parts) {
  constexpr int kQuads = kTile / kSide / 4;  // a thread's rows and columns of C come in fours
  __shared__ __align__(16) float a_tile[kDepth][kTile + 4];
  __shared__ __align__(16) float b_tile[kDepth][kTile + 4];
  const int tiles_across = (n + kTile - 1) / kTile;
  const int top = static_cast<int>(blockIdx.x) / tiles_across * kTile;
  const int left = static_cast<int>(blockIdx.x) % tiles_across * kTile;
  const int begin = static_cast<int>(blockIdx.y) * part_depth;
  const int end = min(k, begin + part_depth);
  const int row = static_cast<int>(threadIdx.x) / kSide * 4;
  const int column = static_cast<int>(threadIdx.x) % kSide * 4;

  float sum[kQuads * 4][kQuads * 4] = {};
  Slice<kTile, A> a_slice(a, top, m);
  Slice<kTile, B> b_slice(b, left, n);
  a_slice.Fetch(begin, end);
  b_slice.Fetch(begin, end);
  for (int p = begin; p < end; p += kDepth) {
    a_slice.Put(a_tile);
    b_slice.Put(b_tile);
    __syncthreads();
    a_slice.Fetch(p + kDepth, end);
    b_slice.Fetch(p + kDepth, end);
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      float4 left_values[kQuads], right_values[kQuads];
#pragma unroll
      for (int q = 0; q < kQuads; ++q) {
        left_values[q] = *reinterpret_cast<const float4*>(&a_tile[d][q * kSide * 4 + row]);
        right_values[q] = *reinterpret_cast<const float4*>(&b_tile[d][q * kSide * 4 + column]);
      }
      const float* x = reinterpret_cast<const float*>(left_values);
      const float* y = reinterpret_cast<const float*>(right_values);
#pragma unroll
      for (int i = 0; i < kQuads * 4; ++i) {
#pragma unroll
        for (int j = 0; j < kQuads * 4; ++j) sum[i][j] += x[i] * y[j];
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kQuads * 4; ++i) {
    const int at_row = top + i / 4 * kSide * 4 + row + i % 4;
#pragma unroll
    for (int j = 0; j < kQuads * 4; ++j) {
      const int at_column = left + j / 4 * kSide * 4 + column + j % 4;
      if (at_row >= m || at_column >= n) continue;
      if (parts != nullptr) {
        parts[(static_cast<int64_t>(blockIdx.y) * m + at_row) * n + at_column] = sum[i][j];
      } else {
        c.Store(at_row, at_column, sum[i][j]);
      }
    }
  }
}

// C = the parts added up, in order.
template <typename C>
__global__ void AddParts(const float* parts, int count, int64_t m, int64_t n, C c) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < m * n; at += step) {
    float sum = 0.0f;
    for (int part = 0; part < count; ++part) sum += parts[part * m * n + at];
    c.Store(static_cast<int>(at / n), static_cast<int>(at % n), sum);
  }
}

// Sizes from 0 up to what the kernel's ints hold; throws std::invalid_argument beyond.
inline void RequireGemmSizes(std::initializer_list<int64_t> sizes) {
  for (int64_t size : sizes) Require(size < int64_t{1} << 30, "sizes must be below 2^30 on a GPU");
}

template <int kTile, typename A, typename B, typename C>
void GemmOfTiles(int64_t m, int64_t n, int64_t k, A a, B b, C c, Stream stream) {
  const int64_t tiles = (m + kTile - 1) / kTile * ((n + kTile - 1) / kTile);
  Require(tiles < int64_t{1} << 31, "the result is too large for a GPU");
  // A small C with a deep product, such as a weight's gradient, would leave most of a GPU idle: it
  // is cut along k. How often follows from the sizes alone, so the result is the same on any GPU.
  constexpr int64_t kWanted = 256, kLeast = 256;  // blocks; depth of a part
  const int64_t wanted = std::clamp<int64_t>(kWanted / tiles, 1, std::max<int64_t>(k / kLeast, 1));
  const int64_t depth = ((k + wanted - 1) / wanted + kDepth - 1) / kDepth * kDepth;
  const int64_t count = depth > 0 ? (k + depth - 1) / depth : 1;
  const Scratch<float> parts(count > 1 ? count * m * n : 0, stream);
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(count));
  Launch(GemmKernel<kTile, A, B, C>, "Gemm", grid, kThreads, stream, static_cast<int>(m),
         static_cast<int>(n), static_cast<int>(k), static_cast<int>(depth), a, b, c, parts.data());
  if (count > 1) {
    Launch(AddParts<C>, "AddParts", BlocksFor((m * n + kThreads - 1) / kThreads), kThreads, stream,
           static_cast<const float*>(parts.data()), static_cast<int>(count), m, n, c);
  }
}

template <typename A, typename B, typename C>
void Gemm(int64_t m, int64_t n, int64_t k, A a, B b, C c, Stream stream) {
  RequireGemmSizes({m, n, k});
  if (m == 0 || n == 0) return;
  // A larger tile reads less memory for each product, if there are enough of them to share out.
  const bool is_large = m > 64 && n > 64 && (m + 127) / 128 * ((n + 127) / 128) >= 64;
  if (is_large) {
    GemmOfTiles<128>(m, n, k, a, b, c, stream);
  } else {
    GemmOfTiles<64>(m, n, k, a, b, c, stream);
  }
}

// ---- Operands and results that are plain matrices

// Element (i, p) at data[i * stride + p] where kAlong, else at data[i + p * stride].
template <bool kAlong>
struct Matrix {
  static constexpr bool kAlongDepth = kAlong;
  using Line = const float*;
  const float* data;
  int64_t stride;

  __device__ Line At(int i) const { return data + (kAlong ? i * stride : i); }
  __device__ float Load(Line line, int p) const { return line[kAlong ? p : p * stride]; }
};

// Element (i, j) at data[i * columns + j], plus bias[j] where there is one.
struct Rows {
  float* data;
  int64_t columns;
  const float* bias;

  __device__ void Store(int i, int j, float value) const {
    data[i * columns + j] = bias != nullptr ? value + bias[j] : value;
  }
};

}  // namespace oar::cuda

#endif  // OAR_SRC_CUDA_GEMM_CUH_
