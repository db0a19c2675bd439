#include "window.h"

#include "checks.h"
#include "oar/oar.h"

namespace oar {

int64_t OutputSize(int64_t size, int64_t kernel, int64_t stride, int64_t pad) {
  constexpr int64_t kLimit = int64_t{1} << 31;
  RequireSizes({size});
  Require(size < kLimit, "height and width must be below 2^31");
  Require(kernel >= 1 && kernel < kLimit, "the kernel must be at least 1 pixel");
  Require(stride >= 1 && stride < kLimit, "stride must be at least 1 pixel");
  Require(pad >= 0 && pad < kLimit, "padding must not be negative");
  Require(kernel <= size + 2 * pad, "the kernel is larger than the padded input");
  return (size + 2 * pad - kernel) / stride + 1;
}

}  // namespace oar
