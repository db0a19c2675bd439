// The plan is that of Goto and van de Geijn (2008): blocks of A and B are copied into panels that
// fit the caches, and a micro-kernel multiplies two panels into a tile of C held in registers.

#include "gemm.h"

#include <algorithm>
#include <cstring>

#include "buffer.h"
#include "parallel.h"

namespace oar {
namespace {

// The compiler's target sets the vector width. A tile of kMr x (kVecs * kLanes) floats takes
// kMr * kVecs registers, and leaves four of the 16 for the operands. With AVX-512, gcc makes slower
// code of a tile twice as wide, so 8 lanes it is there too.
#if defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kMr = 6;
constexpr int kVecs = 2;
constexpr int kNr = kVecs * kLanes;

// Sizes of the blocks: a panel of B (kKc x kNr) stays in L1, the block of A (kMc x kKc) in L2, the
// block of B (kKc x kNc) in L3 or in L2's rest.
constexpr int64_t kMc = 96, kKc = 256, kNc = 1024;
static_assert(kMc % kMr == 0 && kNc % kNr == 0, "blocks are whole tiles");

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));

Vec Load(const float* from) {
  Vec v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

void Write(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Copies `extent` lines of `depth` elements into panels kWidth lines wide, in which the kWidth
// elements of equal depth stand together. The last panel is filled up with zeros.
template <int kWidth>
void Pack(const float* from, int64_t line_stride, int64_t depth_stride, int64_t extent,
          int64_t depth, float* to) {
  for (int64_t first = 0; first < extent; first += kWidth) {
    const float* lines = from + first * line_stride;
    const int64_t width = std::min<int64_t>(kWidth, extent - first);
    if (width == kWidth && line_stride == 1) {
      for (int64_t p = 0; p < depth; ++p) {
        std::memcpy(to + p * kWidth, lines + p * depth_stride, kWidth * sizeof(float));
      }
    } else if (width == kWidth) {
      for (int64_t p = 0; p < depth; ++p) {
        for (int i = 0; i < kWidth; ++i) {
          to[p * kWidth + i] = lines[i * line_stride + p * depth_stride];
        }
      }
    } else {
      std::fill_n(to, depth * kWidth, 0.0f);
      for (int64_t p = 0; p < depth; ++p) {
        for (int64_t i = 0; i < width; ++i) {
          to[p * kWidth + i] = lines[i * line_stride + p * depth_stride];
        }
      }
    }
    to += depth * kWidth;
  }
}

// c[kMr, kNr] = or += a panel of A times a panel of B. All trip counts but `depth` are constants,
// so the compiler unrolls the loops and keeps `sum` in registers.
void Tile(int64_t depth, const float* __restrict a, const float* __restrict b, float* __restrict c,
          int64_t ldc, Store store) {
  Vec sum[kMr][kVecs] = {};
  for (int64_t p = 0; p < depth; ++p) {
    Vec row[kVecs];
    for (int v = 0; v < kVecs; ++v) row[v] = Load(b + p * kNr + v * kLanes);
    for (int i = 0; i < kMr; ++i) {
      for (int v = 0; v < kVecs; ++v) sum[i][v] += a[p * kMr + i] * row[v];
    }
  }
  for (int i = 0; i < kMr; ++i) {
    for (int v = 0; v < kVecs; ++v) {
      float* to = c + i * ldc + v * kLanes;
      Write(to, store == Store::kAdd ? Load(to) + sum[i][v] : sum[i][v]);
    }
  }
}

// A tile that sticks out of C: computed whole beside it, then its `rows` x `cols` copied.
void EdgeTile(int64_t depth, const float* a, const float* b, float* c, int64_t ldc, int64_t rows,
              int64_t cols, Store store) {
  float whole[kMr * kNr];
  Tile(depth, a, b, whole, kNr, Store::kOverwrite);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      const float before = store == Store::kAdd ? c[i * ldc + j] : 0.0f;
      c[i * ldc + j] = before + whole[i * kNr + j];
    }
  }
}

// C = or += the packed block of A times the packed block of B.
void MultiplyBlocks(int64_t m, int64_t n, int64_t depth, const float* a, const float* b, float* c,
                    int64_t ldc, Store store) {
  for (int64_t j = 0; j < n; j += kNr) {
    const float* b_panel = b + j * depth;
    const int64_t cols = std::min<int64_t>(kNr, n - j);
    for (int64_t i = 0; i < m; i += kMr) {
      const float* a_panel = a + i * depth;
      const int64_t rows = std::min<int64_t>(kMr, m - i);
      float* tile = c + i * ldc + j;
      if (rows == kMr && cols == kNr) {
        Tile(depth, a_panel, b_panel, tile, ldc, store);
      } else {
        EdgeTile(depth, a_panel, b_panel, tile, ldc, rows, cols, store);
      }
    }
  }
}

// Into how many rows and columns of blocks C is cut, one block per thread.
struct Grid {
  int64_t rows, cols;
};

// Each block packs its own panels, so the fewer elements of A and B a block touches, the better.
Grid ChooseGrid(int64_t m, int64_t n, int threads) {
  Grid best{1, 1};
  int64_t least = m + n;
  for (int64_t rows = 1; rows <= threads; ++rows) {
    const int64_t cols = threads / rows;
    const int64_t height = RoundUp((m + rows - 1) / rows, kMr);
    const int64_t width = RoundUp((n + cols - 1) / cols, kNr);
    const bool is_busier = rows * cols > best.rows * best.cols;
    if (is_busier || (rows * cols == best.rows * best.cols && height + width < least)) {
      best = {rows, cols};
      least = height + width;
    }
  }
  return best;
}

}  // namespace

int64_t GemmScratch(int64_t m, int64_t n, int64_t k) {
  const int64_t depth = std::min(k, kKc);
  return depth * (RoundUp(std::min(m, kMc), kMr) + RoundUp(std::min(n, kNc), kNr));
}

void GemmSerial(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c, int64_t ldc,
                Store store, float* scratch) {
  if (k == 0 && store == Store::kOverwrite) {
    for (int64_t i = 0; i < m; ++i) std::fill_n(c + i * ldc, n, 0.0f);
  }
  float* const a_block = scratch;
  float* const b_block = scratch + std::min(k, kKc) * RoundUp(std::min(m, kMc), kMr);
  for (int64_t j = 0; j < n; j += kNc) {
    const int64_t cols = std::min(kNc, n - j);
    for (int64_t p = 0; p < k; p += kKc) {
      const int64_t depth = std::min(kKc, k - p);
      const Store how = p > 0 ? Store::kAdd : store;
      Pack<kNr>(b.data + p * b.row_stride + j * b.col_stride, b.col_stride, b.row_stride, cols,
                depth, b_block);
      for (int64_t i = 0; i < m; i += kMc) {
        const int64_t rows = std::min(kMc, m - i);
        Pack<kMr>(a.data + i * a.row_stride + p * a.col_stride, a.row_stride, a.col_stride, rows,
                  depth, a_block);
        MultiplyBlocks(rows, cols, depth, a_block, b_block, c + i * ldc + j, ldc, how);
      }
    }
  }
}

void Gemm(int64_t m, int64_t n, int64_t k, MatrixView a, MatrixView b, float* c, int64_t ldc,
          Store store) {
  if (m == 0 || n == 0) return;
  // A fused multiply-add is the cheapest work there is: some eight of them to a simple operation.
  const Grid grid = ChooseGrid(m, n, ThreadsFor(m * n * std::max<int64_t>(k, 8) / 8));
  const int64_t height = RoundUp((m + grid.rows - 1) / grid.rows, kMr);
  const int64_t width = RoundUp((n + grid.cols - 1) / grid.cols, kNr);
  const int64_t scratch_size = RoundUp(GemmScratch(height, width, k), kLanes);
  const int64_t blocks = grid.rows * grid.cols;
  const Buffer scratch(blocks * scratch_size);
  ParallelFor(blocks, static_cast<int>(blocks), [&](int64_t block, int) {
    const int64_t i = block / grid.cols * height, j = block % grid.cols * width;
    if (i >= m || j >= n) return;
    GemmSerial(std::min(height, m - i), std::min(width, n - j), k,
               {a.data + i * a.row_stride, a.row_stride, a.col_stride},
               {b.data + j * b.col_stride, b.row_stride, b.col_stride}, c + i * ldc + j, ldc, store,
               scratch.data() + block * scratch_size);
  });
}

}  // namespace oar
