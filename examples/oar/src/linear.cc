#include <algorithm>

#include "checks.h"
#include "gemm.h"
#include "parallel.h"
#include "reduce.h"

namespace oar {

void LinearForward(const float* x, const float* weight, const float* bias, int64_t batch,
                   int64_t in, int64_t out, float* y) {
  RequireSizes({batch, in, out});
  if (bias != nullptr) {
    ParallelRanges(batch, out, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) std::copy_n(bias, out, y + row * out);
    });
  }
  Gemm(batch, out, in, {x, in, 1}, {weight, 1, in}, y, out,
       bias != nullptr ? Store::kAdd : Store::kOverwrite);
}

void LinearBackward(const float* dy, const float* x, const float* weight, int64_t batch, int64_t in,
                    int64_t out, float* dx, float* dweight, float* dbias) {
  RequireSizes({batch, in, out});
  Gemm(batch, in, out, {dy, out, 1}, {weight, in, 1}, dx, in, Store::kOverwrite);
  Gemm(out, in, batch, {dy, 1, out}, {x, in, 1}, dweight, in, Store::kOverwrite);
  SumRows(dy, batch, out, dbias);
}

}  // namespace oar
