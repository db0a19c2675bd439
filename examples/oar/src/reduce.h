// Sums over the rows of a matrix.

#ifndef OAR_SRC_REDUCE_H_
#define OAR_SRC_REDUCE_H_

#include <algorithm>
#include <cstdint>

#include "parallel.h"

namespace oar {

// sum[cols] = the rows of x[rows, cols] added up. Threads share the columns, not the rows, so the
// order of additions is fixed.
inline void SumRows(const float* x, int64_t rows, int64_t cols, float* sum) {
  ParallelRanges(cols, rows, [&](int64_t begin, int64_t end) {
    std::fill(sum + begin, sum + end, 0.0f);
    for (int64_t row = 0; row < rows; ++row) {
      const float* values = x + row * cols;
#pragma omp simd
      for (int64_t j = begin; j < end; ++j) sum[j] += values[j];
    }
  });
}

}  // namespace oar

#endif  // OAR_SRC_REDUCE_H_
