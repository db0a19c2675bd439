// Convolution as matrix products: the pixels under each window position become a column ("im2col"),
// in pieces of a few output rows that stay in the cache.
//
// With K = in_channels * kernel_h * kernel_w and P = out_h * out_w, for each image:
//   y[out_channels, P]       = weight[out_channels, K] * columns[K, P]
//   dcolumns[K, P]           = weight^T * dy[out_channels, P], added back into dx
//   dweight[out_channels, K] = dy * columns^T, summed over the images

#include <algorithm>
#include <cstring>

#include "buffer.h"
#include "gemm.h"
#include "parallel.h"
#include "plans.h"
#include "window.h"

namespace oar {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Output rows per piece, so that a piece of columns `depth` deep takes about 512 KiB: of a size
// with L2, and long enough for the matrix product.
int64_t RowsPerPiece(const ConvPlan& plan, int64_t depth) {
  constexpr int64_t kFloats = 131072;
  return std::clamp<int64_t>(kFloats / std::max<int64_t>(depth * plan.out_w, 1), 1, plan.out_h);
}

// Writes the columns of some channels for some output rows: [channels * taps][rows][out_w]. What a
// tap meets in one row of the image is one run of pixels, with padding on either side.
void ImageToColumns(const float* image, const Conv2dShape& s, const ConvPlan& plan, Range channels,
                    Range rows, float* columns) {
  const Window2d& w = s.window;
  for (int64_t c = channels.begin; c < channels.end; ++c) {
    const float* plane = image + c * s.height * s.width;
    for (int64_t ky = 0; ky < w.kernel_h; ++ky) {
      for (int64_t kx = 0; kx < w.kernel_w; ++kx) {
        const Range inside = TapRange(plan.out_w, s.width, kx, w.stride_w, w.pad_w);
        for (int64_t oy = rows.begin; oy < rows.end; ++oy, columns += plan.out_w) {
          const int64_t iy = oy * w.stride_h + ky - w.pad_h;
          if (iy < 0 || iy >= s.height) {
            std::fill_n(columns, plan.out_w, 0.0f);
            continue;
          }
          const float* pixels = plane + iy * s.width;
          const int64_t shift = kx - w.pad_w;
          std::fill(columns, columns + inside.begin, 0.0f);
          if (w.stride_w == 1) {
            std::copy(pixels + inside.begin + shift, pixels + inside.end + shift,
                      columns + inside.begin);
          } else {
            for (int64_t ox = inside.begin; ox < inside.end; ++ox) {
              columns[ox] = pixels[ox * w.stride_w + shift];
            }
          }
          std::fill(columns + inside.end, columns + plan.out_w, 0.0f);
        }
      }
    }
  }
}

// The reverse: adds each column element to the pixel it came from; those from padding are dropped.
void AddColumnsToImage(const float* columns, const Conv2dShape& s, const ConvPlan& plan,
                       Range channels, Range rows, float* image) {
  const Window2d& w = s.window;
  for (int64_t c = channels.begin; c < channels.end; ++c) {
    float* plane = image + c * s.height * s.width;
    for (int64_t ky = 0; ky < w.kernel_h; ++ky) {
      for (int64_t kx = 0; kx < w.kernel_w; ++kx) {
        const Range inside = TapRange(plan.out_w, s.width, kx, w.stride_w, w.pad_w);
        for (int64_t oy = rows.begin; oy < rows.end; ++oy, columns += plan.out_w) {
          const int64_t iy = oy * w.stride_h + ky - w.pad_h;
          if (iy < 0 || iy >= s.height) continue;
          float* pixels = plane + iy * s.width;
          const int64_t shift = kx - w.pad_w;
          if (w.stride_w == 1) {
#pragma omp simd
            for (int64_t ox = inside.begin; ox < inside.end; ++ox) {
              pixels[ox + shift] += columns[ox];
            }
          } else {
            for (int64_t ox = inside.begin; ox < inside.end; ++ox) {
              pixels[ox * w.stride_w + shift] += columns[ox];
            }
          }
        }
      }
    }
  }
}

// The channels of one task of a backward pass: enough for a product of some hundred rows, few
// enough that a single image still makes tasks for several threads.
int64_t ChannelsPerTask(const ConvPlan& plan) { return CeilDiv(128, plan.taps); }

int ThreadsForConv(const Conv2dShape& s, const ConvPlan& plan, int64_t tasks) {
  const int64_t work = s.batch * s.out_channels * plan.pixels * plan.depth / 8;
  return static_cast<int>(std::clamp<int64_t>(tasks, 1, ThreadsFor(work)));
}

void InputGradient(const float* dy, const float* weight, const Conv2dShape& s, const ConvPlan& plan,
                   float* dx) {
  const int64_t plane = s.height * s.width;
  const int64_t group = ChannelsPerTask(plan), groups = CeilDiv(s.in_channels, group);
  const int64_t group_depth = std::min(group, s.in_channels) * plan.taps;
  const int64_t piece = RowsPerPiece(plan, group_depth);
  const int64_t columns_size = group_depth * piece * plan.out_w;
  const int64_t scratch_size =
      columns_size + GemmScratch(group_depth, piece * plan.out_w, s.out_channels);
  const int threads = ThreadsForConv(s, plan, s.batch * groups);
  const Buffer scratch(threads * scratch_size);
  ParallelFor(s.batch * groups, threads, [&](int64_t task, int thread) {
    const int64_t image = task / groups;
    const Range channels{task % groups * group,
                         std::min(task % groups * group + group, s.in_channels)};
    float* columns = scratch.data() + thread * scratch_size;
    float* dx_image = dx + image * s.in_channels * plane;
    std::fill(dx_image + channels.begin * plane, dx_image + channels.end * plane, 0.0f);
    for (int64_t top = 0; top < plan.out_h; top += piece) {
      const Range rows{top, std::min(top + piece, plan.out_h)};
      const int64_t pixels = (rows.end - rows.begin) * plan.out_w;
      const float* dy_rows = dy + image * s.out_channels * plan.pixels + top * plan.out_w;
      GemmSerial((channels.end - channels.begin) * plan.taps, pixels, s.out_channels,
                 {weight + channels.begin * plan.taps, 1, plan.depth}, {dy_rows, plan.pixels, 1},
                 columns, pixels, Store::kOverwrite, columns + columns_size);
      AddColumnsToImage(columns, s, plan, channels, rows, dx_image);
    }
  });
}

void WeightGradient(const float* dy, const float* x, const Conv2dShape& s, const ConvPlan& plan,
                    float* dweight) {
  const int64_t weights = s.out_channels * plan.depth;
  // Tasks are parts of the batch times groups of channels. Each part sums into a copy of dweight,
  // and the copies are added in order; how many there are follows from the shape alone, so the
  // result does not depend on the threads. At most 32 copies, and 64 MiB of them.
  constexpr int64_t kCopies = 32, kCopyFloats = int64_t{1} << 24;
  const int64_t parts =
      std::clamp<int64_t>(std::min(kCopies, kCopyFloats / std::max<int64_t>(weights, 1)), 1,
                          std::max<int64_t>(s.batch, 1));
  const int64_t group = ChannelsPerTask(plan), groups = CeilDiv(s.in_channels, group);
  const int64_t group_depth = std::min(group, s.in_channels) * plan.taps;
  const int64_t piece = RowsPerPiece(plan, group_depth);
  const int64_t columns_size = group_depth * piece * plan.out_w;
  const int64_t scratch_size =
      columns_size + GemmScratch(s.out_channels, group_depth, piece * plan.out_w);
  const int threads = ThreadsForConv(s, plan, parts * groups);
  const Buffer scratch(threads * scratch_size), copies(parts * weights);
  std::fill_n(copies.data(), parts * weights, 0.0f);
  ParallelFor(parts * groups, threads, [&](int64_t task, int thread) {
    const int64_t part = task / groups;
    const Range channels{task % groups * group,
                         std::min(task % groups * group + group, s.in_channels)};
    const int64_t depth = (channels.end - channels.begin) * plan.taps;
    float* columns = scratch.data() + thread * scratch_size;
    float* sum = copies.data() + part * weights + channels.begin * plan.taps;
    for (int64_t image = s.batch * part / parts; image < s.batch * (part + 1) / parts; ++image) {
      const float* x_image = x + image * s.in_channels * s.height * s.width;
      for (int64_t top = 0; top < plan.out_h; top += piece) {
        const Range rows{top, std::min(top + piece, plan.out_h)};
        const int64_t pixels = (rows.end - rows.begin) * plan.out_w;
        const float* dy_rows = dy + image * s.out_channels * plan.pixels + top * plan.out_w;
        ImageToColumns(x_image, s, plan, channels, rows, columns);
        GemmSerial(s.out_channels, depth, pixels, {dy_rows, plan.pixels, 1}, {columns, 1, pixels},
                   sum, plan.depth, Store::kAdd, columns + columns_size);
      }
    }
  });
  ParallelRanges(weights, parts, [&](int64_t begin, int64_t end) {
    std::copy(copies.data() + begin, copies.data() + end, dweight + begin);
    for (int64_t part = 1; part < parts; ++part) {
      const float* copy = copies.data() + part * weights;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) dweight[i] += copy[i];
    }
  });
}

void BiasGradient(const float* dy, const Conv2dShape& s, const ConvPlan& plan, float* dbias) {
  ParallelRanges(s.out_channels, s.batch * plan.pixels, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      float total = 0.0f;
      for (int64_t image = 0; image < s.batch; ++image) {
        const float* plane = dy + (image * s.out_channels + c) * plan.pixels;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t p = 0; p < plan.pixels; ++p) sum += plane[p];
        total += sum;
      }
      dbias[c] = total;
    }
  });
}

}  // namespace

void Conv2dForward(const float* x, const float* weight, const float* bias, const Conv2dShape& s,
                   float* y) {
  const ConvPlan plan = MakePlan(s);
  const int64_t piece = RowsPerPiece(plan, plan.depth), pieces = CeilDiv(plan.out_h, piece);
  const int64_t columns_size = plan.depth * piece * plan.out_w;
  const int64_t scratch_size =
      columns_size + GemmScratch(s.out_channels, piece * plan.out_w, plan.depth);
  const int threads = ThreadsForConv(s, plan, s.batch * pieces);
  const Buffer scratch(threads * scratch_size);
  ParallelFor(s.batch * pieces, threads, [&](int64_t task, int thread) {
    const int64_t image = task / pieces;
    const Range rows{task % pieces * piece, std::min(task % pieces * piece + piece, plan.out_h)};
    const int64_t pixels = (rows.end - rows.begin) * plan.out_w;
    float* columns = scratch.data() + thread * scratch_size;
    float* y_rows = y + image * s.out_channels * plan.pixels + rows.begin * plan.out_w;
    for (int64_t c = 0; bias != nullptr && c < s.out_channels; ++c) {
      std::fill_n(y_rows + c * plan.pixels, pixels, bias[c]);
    }
    ImageToColumns(x + image * s.in_channels * s.height * s.width, s, plan, {0, s.in_channels},
                   rows, columns);
    GemmSerial(s.out_channels, pixels, plan.depth, {weight, plan.depth, 1}, {columns, pixels, 1},
               y_rows, plan.pixels, bias != nullptr ? Store::kAdd : Store::kOverwrite,
               columns + columns_size);
  });
}

void Conv2dBackward(const float* dy, const float* x, const float* weight, const Conv2dShape& s,
                    float* dx, float* dweight, float* dbias) {
  const ConvPlan plan = MakePlan(s);
  InputGradient(dy, weight, s, plan, dx);
  WeightGradient(dy, x, s, plan, dweight);
  BiasGradient(dy, s, plan, dbias);
}

}  // namespace oar
