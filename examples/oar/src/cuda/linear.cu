#include "../checks.h"
#include "gemm.cuh"
#include "reduce.cuh"

namespace oar::cuda {
namespace linear_kernels {

struct Element {
  const float* data;
  int64_t columns;

  __device__ float operator()(int64_t row, int64_t column) const {
    return data[row * columns + column];
  }
};

}  // namespace linear_kernels

using namespace linear_kernels;

void LinearForward(const float* x, const float* weight, const float* bias, int64_t batch,
                   int64_t in, int64_t out, float* y, Stream stream) {
  RequireSizes({batch, in, out});
  Gemm(batch, out, in, Matrix<true>{x, in}, Matrix<true>{weight, in}, Rows{y, out, bias}, stream);
}

void LinearBackward(const float* dy, const float* x, const float* weight, int64_t batch, int64_t in,
                    int64_t out, float* dx, float* dweight, float* dbias, Stream stream) {
  RequireSizes({batch, in, out});
  RequireGemmSizes({batch, in, out});
  Gemm(batch, in, out, Matrix<true>{dy, out}, Matrix<false>{weight, in}, Rows{dx, in, nullptr},
       stream);
  Gemm(out, in, batch, Matrix<false>{dy, out}, Matrix<false>{x, in}, Rows{dweight, in, nullptr},
       stream);
  SumRows(Element{dy, out}, batch, out, dbias, stream);
}

}  // namespace oar::cuda
