#include <algorithm>
#include <limits>

#include "checks.h"
#include "parallel.h"
#include "plans.h"
#include "window.h"

namespace oar {
namespace {

// One row of windows. Taps are the outer loop and windows the inner one, without branches, so that
// the inner one vectorises.
void PoolRow(const float* plane, const Pool2dShape& s, int64_t oy, int64_t out_w,
             float* __restrict best, int32_t* __restrict where) {
  const Window2d& w = s.window;
  const int64_t top = oy * w.stride_h - w.pad_h;
  const int64_t first_row = std::max<int64_t>(top, 0);
  const int64_t last_row = std::min(top + w.kernel_h, s.height);
  for (int64_t ox = 0; ox < out_w; ++ox) {
    const int64_t first_column = std::max<int64_t>(ox * w.stride_w - w.pad_w, 0);
    best[ox] = -std::numeric_limits<float>::infinity();
    where[ox] = static_cast<int32_t>(first_row * s.width + first_column);
  }
  for (int64_t iy = first_row; iy < last_row; ++iy) {
    for (int64_t kx = 0; kx < w.kernel_w; ++kx) {
      const Range inside = TapRange(out_w, s.width, kx, w.stride_w, w.pad_w);
      const int64_t start = iy * s.width + kx - w.pad_w;
#pragma omp simd
      for (int64_t ox = inside.begin; ox < inside.end; ++ox) {
        const int64_t at = start + ox * w.stride_w;
        const float value = plane[at];
        const bool wins = (value > best[ox]) | (value != value);
        best[ox] = wins ? value : best[ox];
        where[ox] = wins ? static_cast<int32_t>(at) : where[ox];
      }
    }
  }
}

}  // namespace

void MaxPool2dForward(const float* x, const Pool2dShape& s, float* y, int32_t* positions) {
  const PoolOutput out = CheckedOutput(s);
  const int64_t taps = s.window.kernel_h * s.window.kernel_w;
  ParallelRanges(s.planes, out.height * out.width * taps, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      for (int64_t oy = 0; oy < out.height; ++oy) {
        const int64_t row = (plane * out.height + oy) * out.width;
        PoolRow(x + plane * s.height * s.width, s, oy, out.width, y + row, positions + row);
      }
    }
  });
}

void MaxPool2dBackward(const float* dy, const int32_t* positions, int64_t planes, int64_t windows,
                       int64_t pixels, float* dx) {
  RequireSizes({planes, windows, pixels});
  RequireInRange(positions, planes * windows, pixels, "positions");
  ParallelRanges(planes, pixels + windows, [&](int64_t begin, int64_t end) {
    std::fill(dx + begin * pixels, dx + end * pixels, 0.0f);
    for (int64_t plane = begin; plane < end; ++plane) {
      for (int64_t i = plane * windows; i < (plane + 1) * windows; ++i) {
        dx[plane * pixels + positions[i]] += dy[i];
      }
    }
  });
}

}  // namespace oar
