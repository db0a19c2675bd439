// Geometry of a sliding window, shared by convolution and pooling.

#ifndef OAR_SRC_WINDOW_H_
#define OAR_SRC_WINDOW_H_

#include <algorithm>
#include <cstdint>

namespace oar {

struct Range {
  int64_t begin, end;
};

// The window positions, of `out`, at which the tap `tap` pixels into the window lies on the input
// and not on padding: 0 <= position * stride + tap - pad < size. Empty ranges have begin == end.
inline Range TapRange(int64_t out, int64_t size, int64_t tap, int64_t stride, int64_t pad) {
  const int64_t last = size - 1 + pad - tap;
  const int64_t end = last < 0 ? 0 : std::min(out, last / stride + 1);
  const int64_t begin = tap >= pad ? 0 : (pad - tap + stride - 1) / stride;
  return {std::min(begin, end), end};
}

}  // namespace oar

#endif  // OAR_SRC_WINDOW_H_
