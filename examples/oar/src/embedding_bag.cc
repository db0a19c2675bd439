#include <algorithm>

#include "checks.h"
#include "parallel.h"
#include "plans.h"

namespace oar {
namespace {

template <typename Index>
void RequireBags(const Bags<Index>& bags, int64_t rows, int64_t dim) {
  RequireSizes({bags.count, bags.bags, rows, dim});
  Require(bags.bags > 0 || bags.count == 0, kOffsetsEmpty);
  Require(bags.bags == 0 || bags.offsets[0] == 0, kOffsetsStart);
  Require(std::is_sorted(bags.offsets, bags.offsets + bags.bags), kOffsetsAscend);
  Require(bags.bags == 0 || bags.offsets[bags.bags - 1] <= bags.count, kOffsetsExceed);
  RequireInRange(bags.indices, bags.count, rows, "indices");
}

}  // namespace

template <typename Index>
void EmbeddingBagForward(const float* weight, const Bags<Index>& bags, int64_t rows, int64_t dim,
                         BagMode mode, float* y) {
  RequireBags(bags, rows, dim);
  const int64_t mean_size = bags.count / std::max<int64_t>(bags.bags, 1);
  ParallelRanges(bags.bags, dim * (mean_size + 1), [&](int64_t begin, int64_t end) {
    for (int64_t bag = begin; bag < end; ++bag) {
      const int64_t first = bags.offsets[bag], last = BagEnd(bags, bag);
      float* sum = y + bag * dim;
      std::fill_n(sum, dim, 0.0f);
      for (int64_t i = first; i < last; ++i) {
        const float* row = weight + bags.indices[i] * dim;
#pragma omp simd
        for (int64_t j = 0; j < dim; ++j) sum[j] += row[j];
      }
      const float scale = BagScale(mode, last - first);
#pragma omp simd
      for (int64_t j = 0; j < dim; ++j) sum[j] *= scale;
    }
  });
}

template <typename Index>
void EmbeddingBagBackward(const float* dy, const Bags<Index>& bags, int64_t rows, int64_t dim,
                          BagMode mode, float* dweight) {
  RequireBags(bags, rows, dim);
  // Each thread owns a range of the table's rows and looks through all indices for them: no two
  // threads write one row, and a row's additions keep their order.
  const int64_t mean_uses = bags.count / std::max<int64_t>(rows, 1);
  ParallelRanges(rows, dim * (mean_uses + 1), [&](int64_t begin, int64_t end) {
    std::fill(dweight + begin * dim, dweight + end * dim, 0.0f);
    for (int64_t bag = 0; bag < bags.bags; ++bag) {
      const int64_t first = bags.offsets[bag], last = BagEnd(bags, bag);
      const float scale = BagScale(mode, last - first);
      const float* grad = dy + bag * dim;
      for (int64_t i = first; i < last; ++i) {
        const int64_t index = bags.indices[i];
        if (index < begin || index >= end) continue;
        float* row = dweight + index * dim;
#pragma omp simd
        for (int64_t j = 0; j < dim; ++j) row[j] += scale * grad[j];
      }
    }
  });
}

#define OAR_INSTANTIATE(Index)                                                                   \
  template OAR_API void EmbeddingBagForward(const float*, const Bags<Index>&, int64_t, int64_t,  \
                                            BagMode, float*);                                    \
  template OAR_API void EmbeddingBagBackward(const float*, const Bags<Index>&, int64_t, int64_t, \
                                             BagMode, float*);
OAR_INSTANTIATE(int32_t)
OAR_INSTANTIATE(int64_t)
#undef OAR_INSTANTIATE

}  // namespace oar
