// Division without a divide: GPUs have no instruction for it.

#ifndef OAR_SRC_CUDA_DIVISOR_H_
#define OAR_SRC_CUDA_DIVISOR_H_

#include <cstdint>

#include "../host_device.h"

namespace oar::cuda {

// Exact division of numbers below 2^31 by one that is not known when this is compiled. With
// s = ceil(log2(d)) and m = ceil(2^(31 + s) / d), n * m / 2^(31 + s) is too large by less than 1 /
// d.
class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(int64_t d) : divisor_(static_cast<int>(d)) {
    int s = 0;
    while ((int64_t{1} << s) < d) ++s;
    shift_ = 31 + s;
    factor_ = static_cast<unsigned>(((uint64_t{1} << shift_) + d - 1) / d);
  }

  OAR_HOST_DEVICE int Quotient(int n) const {
    return static_cast<int>((static_cast<uint64_t>(n) * factor_) >> shift_);
  }
  OAR_HOST_DEVICE int Remainder(int n, int quotient) const { return n - quotient * divisor_; }

 private:
  int divisor_ = 1;
  int shift_ = 31;
  unsigned factor_ = 1u << 31;
};

}  // namespace oar::cuda

#endif  // OAR_SRC_CUDA_DIVISOR_H_
