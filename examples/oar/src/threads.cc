#include <atomic>

#include "checks.h"
#include "parallel.h"

namespace oar {
namespace {

// OpenMP keeps its own setting per calling thread; ours holds for the process. 0: not set yet.
std::atomic<int> chosen_threads{0};

}  // namespace

int NumThreads() {
#ifdef _OPENMP
  const int chosen = chosen_threads.load(std::memory_order_relaxed);
  return chosen > 0 ? chosen : omp_get_max_threads();
#else
  return 1;
#endif
}

void SetNumThreads(int n) {
  // libgomp ends the process when it cannot start a thread, so a slip must not get that far.
  Require(n >= 1 && n <= 1024, "the number of threads must lie between 1 and 1024");
  chosen_threads.store(n, std::memory_order_relaxed);
}

}  // namespace oar
