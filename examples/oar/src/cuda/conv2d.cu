// Convolution as matrix products, as in ../conv2d.cc, but over all images at once and without the
// columns being written anywhere: the operands of the product read the image.
//
// With K = in_channels * kernel_h * kernel_w and P = out_h * out_w:
//   y[out_channels, batch * P]                 = weight[out_channels, K] * columns[K, batch * P]
//   dx[in_channels, batch * height * width]    = weight' * windows of dy, K' deep, K' being
//                                                out_channels * kernel_h * kernel_w
//   dweight[out_channels, K]                   = dy * columns^T, batch * P deep

#include "../plans.h"
#include "gemm.cuh"
#include "reduce.cuh"

namespace oar::cuda {
namespace conv2d_kernels {

// The shape in the kernel's ints, with what it divides by.
struct Geometry {
  int in_channels, height, width, out_channels, out_h, out_w;
  int stride_h, stride_w, pad_h, pad_w, taps;
  Divisor by_taps, by_kernel_w, by_stride_h, by_stride_w;
  Divisor by_out_w, by_pixels_out, by_width, by_pixels_in;
};

Geometry MakeGeometry(const Conv2dShape& s, const ConvPlan& plan) {
  const Window2d& w = s.window;
  RequireGemmSizes({s.in_channels, s.out_channels, s.height + 2 * w.pad_h, s.width + 2 * w.pad_w,
                    s.height * s.width, plan.pixels, w.stride_h, w.stride_w, plan.taps, plan.depth,
                    s.out_channels * plan.taps});
  const auto narrow = [](int64_t size) { return static_cast<int>(size); };
  const auto by = [](int64_t size) { return Divisor(std::max<int64_t>(size, 1)); };
  return {narrow(s.in_channels), narrow(s.height),   narrow(s.width),       narrow(s.out_channels),
          narrow(plan.out_h),    narrow(plan.out_w), narrow(w.stride_h),    narrow(w.stride_w),
          narrow(w.pad_h),       narrow(w.pad_w),    narrow(plan.taps),     by(plan.taps),
          by(w.kernel_w),        by(w.stride_h),     by(w.stride_w),        by(plan.out_w),
          by(plan.pixels),       by(s.width),        by(s.height * s.width)};
}

// x as columns: (k, j), k = (channel, ky, kx) and j = (image, oy, ox).
struct ColumnsOfPixels {
  static constexpr bool kAlongDepth = false;
  struct Line {
    const float* image;
    int top, left;  // the window's corner in the image
  };
  const float* x;
  Geometry g;

  __device__ Line At(int j) const {
    const int image = g.by_pixels_out.Quotient(j), pixel = g.by_pixels_out.Remainder(j, image);
    const int oy = g.by_out_w.Quotient(pixel), ox = g.by_out_w.Remainder(pixel, oy);
    return {x + int64_t{image} * g.in_channels * g.height * g.width, oy * g.stride_h - g.pad_h,
            ox * g.stride_w - g.pad_w};
  }

  __device__ float Load(const Line& line, int k) const {
    const int channel = g.by_taps.Quotient(k), tap = g.by_taps.Remainder(k, channel);
    const int ky = g.by_kernel_w.Quotient(tap), kx = g.by_kernel_w.Remainder(tap, ky);
    const int iy = line.top + ky, ix = line.left + kx;
    if (iy < 0 || iy >= g.height || ix < 0 || ix >= g.width) return 0.0f;
    return line.image[(int64_t{channel} * g.height + iy) * g.width + ix];
  }
};

// The same, read along j: its columns, now the product's, are k.
struct ColumnsOfTaps {
  static constexpr bool kAlongDepth = true;
  struct Line {
    const float* plane;  // of the channel, in the first image
    int down, right;     // from a window's corner, in pixels
  };
  const float* x;
  Geometry g;

  __device__ Line At(int k) const {
    const int channel = g.by_taps.Quotient(k), tap = g.by_taps.Remainder(k, channel);
    const int ky = g.by_kernel_w.Quotient(tap), kx = g.by_kernel_w.Remainder(tap, ky);
    return {x + int64_t{channel} * g.height * g.width, ky - g.pad_h, kx - g.pad_w};
  }

  __device__ float Load(const Line& line, int j) const {
    const int image = g.by_pixels_out.Quotient(j), pixel = g.by_pixels_out.Remainder(j, image);
    const int oy = g.by_out_w.Quotient(pixel), ox = g.by_out_w.Remainder(pixel, oy);
    const int iy = oy * g.stride_h + line.down, ix = ox * g.stride_w + line.right;
    if (iy < 0 || iy >= g.height || ix < 0 || ix >= g.width) return 0.0f;
    return line.plane[(int64_t{image} * g.in_channels * g.height + iy) * g.width + ix];
  }
};

// dy read along j = (image, oy, ox), for the rows out_channel.
struct GradientOfChannels {
  static constexpr bool kAlongDepth = true;
  using Line = const float*;
  const float* dy;
  Geometry g;

  __device__ Line At(int channel) const { return dy + int64_t{channel} * g.out_h * g.out_w; }

  __device__ float Load(Line line, int j) const {
    const int image = g.by_pixels_out.Quotient(j), pixel = g.by_pixels_out.Remainder(j, image);
    return line[int64_t{image} * g.out_channels * g.out_h * g.out_w + pixel];
  }
};

// weight as (in_channel, k), k = (out_channel, ky, kx).
struct WeightOfInput {
  static constexpr bool kAlongDepth = true;
  using Line = const float*;
  const float* weight;
  Geometry g;

  __device__ Line At(int channel) const { return weight + int64_t{channel} * g.taps; }

  __device__ float Load(Line line, int k) const {
    const int out_channel = g.by_taps.Quotient(k), tap = g.by_taps.Remainder(k, out_channel);
    return line[int64_t{out_channel} * g.in_channels * g.taps + tap];
  }
};

// dy as (k, j), k = (out_channel, ky, kx) and j = (image, iy, ix): the output at which that tap
// meets that pixel; zero where none does.
struct GradientOfPixels {
  static constexpr bool kAlongDepth = false;
  struct Line {
    const float* image;
    int bottom, right;  // the pixel, counted from the first window's corner
  };
  const float* dy;
  Geometry g;

  __device__ Line At(int j) const {
    const int image = g.by_pixels_in.Quotient(j), pixel = g.by_pixels_in.Remainder(j, image);
    const int iy = g.by_width.Quotient(pixel), ix = g.by_width.Remainder(pixel, iy);
    return {dy + int64_t{image} * g.out_channels * g.out_h * g.out_w, iy + g.pad_h, ix + g.pad_w};
  }

  __device__ float Load(const Line& line, int k) const {
    const int channel = g.by_taps.Quotient(k), tap = g.by_taps.Remainder(k, channel);
    const int ky = g.by_kernel_w.Quotient(tap), kx = g.by_kernel_w.Remainder(tap, ky);
    const int down = line.bottom - ky, right = line.right - kx;
    if (down < 0 || right < 0) return 0.0f;
    const int oy = g.by_stride_h.Quotient(down), ox = g.by_stride_w.Quotient(right);
    if (g.by_stride_h.Remainder(down, oy) != 0 || g.by_stride_w.Remainder(right, ox) != 0 ||
        oy >= g.out_h || ox >= g.out_w) {
      return 0.0f;
    }
    return line.image[(int64_t{channel} * g.out_h + oy) * g.out_w + ox];
  }
};

// Element (channel, j), j = (image, pixel), of an array [images][channels][pixels], plus
// bias[channel] where there is one.
struct Planes {
  float* data;
  Divisor by_pixels;
  int64_t channels, pixels;
  const float* bias;

  __device__ void Store(int channel, int j, float value) const {
    const int image = by_pixels.Quotient(j), pixel = by_pixels.Remainder(j, image);
    data[(image * channels + channel) * pixels + pixel] =
        bias != nullptr ? value + bias[channel] : value;
  }
};

// Images that one product may take, so that its columns can be counted.
int64_t ImagesAtOnce(int64_t pixels) {
  return std::max<int64_t>(((int64_t{1} << 30) - 1) / std::max<int64_t>(pixels, 1), 1);
}

// A block for each channel.
__global__ void BiasGradient(const float* dy, int64_t batch, int64_t channels, int64_t pixels,
                             float* dbias) {
  const int64_t channel = blockIdx.x;
  float sum = 0.0f;
  for (int64_t image = 0; image < batch; ++image) {
    const float* plane = dy + (image * channels + channel) * pixels;
    for (int64_t p = threadIdx.x; p < pixels; p += blockDim.x) sum += plane[p];
  }
  sum = ReduceBlock(sum, Add());
  if (threadIdx.x == 0) dbias[channel] = sum;
}

}  // namespace conv2d_kernels

using namespace conv2d_kernels;

void Conv2dForward(const float* x, const float* weight, const float* bias, const Conv2dShape& s,
                   float* y, Stream stream) {
  const ConvPlan plan = MakePlan(s);
  const Geometry g = MakeGeometry(s, plan);
  const int64_t most = ImagesAtOnce(plan.pixels);
  for (int64_t first = 0; first < s.batch; first += most) {
    const int64_t images = std::min(most, s.batch - first);
    Gemm(s.out_channels, images * plan.pixels, plan.depth, Matrix<true>{weight, plan.depth},
         ColumnsOfPixels{x + first * s.in_channels * s.height * s.width, g},
         Planes{y + first * s.out_channels * plan.pixels, g.by_pixels_out, s.out_channels,
                plan.pixels, bias},
         stream);
  }
}

void Conv2dBackward(const float* dy, const float* x, const float* weight, const Conv2dShape& s,
                    float* dx, float* dweight, float* dbias, Stream stream) {
  const ConvPlan plan = MakePlan(s);
  const Geometry g = MakeGeometry(s, plan);
  const int64_t pixels_in = s.height * s.width;
  // The weight's gradient is one sum over all pixels of all images, so it is not cut.
  RequireGemmSizes({s.batch, s.batch * plan.pixels});
  const int64_t most = ImagesAtOnce(pixels_in);
  for (int64_t first = 0; first < s.batch; first += most) {
    const int64_t images = std::min(most, s.batch - first);
    Gemm(s.in_channels, images * pixels_in, s.out_channels * plan.taps, WeightOfInput{weight, g},
         GradientOfPixels{dy + first * s.out_channels * plan.pixels, g},
         Planes{dx + first * s.in_channels * pixels_in, g.by_pixels_in, s.in_channels, pixels_in,
                nullptr},
         stream);
  }
  Gemm(s.out_channels, plan.depth, s.batch * plan.pixels, GradientOfChannels{dy, g},
       ColumnsOfTaps{x, g}, Rows{dweight, plan.depth, nullptr}, stream);
  if (s.out_channels > 0) {
    Launch(BiasGradient, "Conv2dBiasGradient", dim3(static_cast<unsigned>(s.out_channels)),
           kThreads, stream, dy, s.batch, s.out_channels, plan.pixels, dbias);
  }
}

}  // namespace oar::cuda
