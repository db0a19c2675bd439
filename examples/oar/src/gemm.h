// Single-precision matrix product, the engine under linear and conv2d.

#ifndef OAR_SRC_GEMM_H_
#define OAR_SRC_GEMM_H_

#include <cstdint>

namespace oar {

// Element (i, j) stands at data[i * row_stride + j * col_stride], so a transpose costs nothing.
struct MatrixView {
  const float* data;
  int64_t row_stride;
  int64_t col_stride;
};

// Whether the product replaces C or is added to it.
enum class Store { kOverwrite, kAdd };

// Floats of scratch that GemmSerial needs for these sizes.
int64_t GemmScratch(int64_t m, int64_t n, int64_t k);

// C[m, n] (rows `ldc` floats apart) = or += A[m, k] * B[k, n], on the calling thread. Every element
// of C is summed in the same order whatever m and n are, so cutting C into blocks changes no bit.
void GemmSerial(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c, int64_t ldc,
                Store store, float* scratch);

// The same on all threads, with scratch of its own.
void Gemm(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c, int64_t ldc,
          Store store);

}  // namespace oar

#endif  // OAR_SRC_GEMM_H_
