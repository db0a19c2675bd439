// The one place that knows OpenMP's threads. Bodies must not throw.

#ifndef OAR_SRC_PARALLEL_H_
#define OAR_SRC_PARALLEL_H_

#include <algorithm>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "oar/oar.h"

namespace oar {

// How many threads pay for themselves. `work` is in simple operations, some five to the nanosecond
// when vectorised; a thread should get enough of them (about 25 us) to outweigh being woken.
inline int ThreadsFor(int64_t work) {
  constexpr int64_t kGrain = 131072;
  return static_cast<int>(std::clamp<int64_t>(work / kGrain, 1, NumThreads()));
}

// Never inlined: in the function that gcc makes of a parallel region it vectorises worse, and it
// may compile one loop twice, with sums of different order.
template <typename Body>
[[gnu::noinline]] void RunTask(const Body& body, int64_t task, int thread) {
  body(task, thread);
}

// Runs body(task, thread) for each task in [0, tasks), thread being in [0, threads).
template <typename Body>
void ParallelFor(int64_t tasks, int threads, const Body& body) {
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t task = 0; task < tasks; ++task) RunTask(body, task, omp_get_thread_num());
#else
  (void)threads;
  for (int64_t task = 0; task < tasks; ++task) RunTask(body, task, 0);
#endif
}

// Cuts [0, n) into one range per thread and runs body(begin, end) on each; `work` is one item's.
template <typename Body>
void ParallelRanges(int64_t n, int64_t work, const Body& body) {
  const int threads = ThreadsFor(n * std::max<int64_t>(work, 1));
  ParallelFor(threads, threads,
              [&](int64_t part, int) { body(n * part / threads, n * (part + 1) / threads); });
}

}  // namespace oar

#endif  // OAR_SRC_PARALLEL_H_
