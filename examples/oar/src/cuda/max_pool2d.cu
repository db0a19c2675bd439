#include "../plans.h"
#include "checks.cuh"
#include "for_each.cuh"

namespace oar::cuda {
namespace max_pool2d_kernels {

// One window. The order of the taps, and with it which of equals wins, is that of ../max_pool2d.cc.
struct Largest {
  const float* x;
  Pool2dShape s;
  PoolOutput out;
  float* y;
  int32_t* positions;

  __device__ void operator()(int64_t i) const {
    const Window2d& w = s.window;
    const int64_t ox = i % out.width, oy = i / out.width % out.height;
    const float* plane = x + i / (out.width * out.height) * s.height * s.width;
    const int64_t top = oy * w.stride_h - w.pad_h, left = ox * w.stride_w - w.pad_w;
    const int64_t first_row = max(top, int64_t{0}), last_row = min(top + w.kernel_h, s.height);
    const int64_t first = max(left, int64_t{0}), last = min(left + w.kernel_w, s.width);
    float best = -INFINITY;
    int64_t where = first_row * s.width + first;
    for (int64_t iy = first_row; iy < last_row; ++iy) {
      for (int64_t ix = first; ix < last; ++ix) {
        const float value = plane[iy * s.width + ix];
        if (value > best || value != value) {
          best = value;
          where = iy * s.width + ix;
        }
      }
    }
    y[i] = best;
    positions[i] = static_cast<int32_t>(where);
  }
};

struct Scatter {
  const float* dy;
  const int32_t* positions;
  int64_t windows, pixels;
  float* dx;

  __device__ void operator()(int64_t i) const {
    atomicAdd(&dx[i / windows * pixels + positions[i]], dy[i]);
  }
};

}  // namespace max_pool2d_kernels

using namespace max_pool2d_kernels;

void MaxPool2dForward(const float* x, const Pool2dShape& s, float* y, int32_t* positions,
                      Stream stream) {
  const PoolOutput out = CheckedOutput(s);
  ForEach(s.planes * out.height * out.width, Largest{x, s, out, y, positions}, "MaxPool2d", stream);
}

void MaxPool2dBackward(const float* dy, const int32_t* positions, int64_t planes, int64_t windows,
                       int64_t pixels, float* dx, Stream stream) {
  RequireSizes({planes, windows, pixels});
  RequireInRange(positions, planes * windows, pixels, "positions", stream);
  FillWithZeros(dx, planes * pixels, stream);
  ForEach(planes * windows, Scatter{dy, positions, windows, pixels, dx}, "MaxPool2dGradient",
          stream);
}

}  // namespace oar::cuda
