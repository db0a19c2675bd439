#include <limits>
#include <stdexcept>

#include "oar/oar.h"
#include "reference.h"

namespace oar {
namespace {

using Positions = std::vector<int32_t>;

void CheckAgainstPlainLoops(const Pool2dShape& s) {
  const Window2d& w = s.window;
  const int64_t out_h = OutputSize(s.height, w.kernel_h, w.stride_h, w.pad_h);
  const int64_t out_w = OutputSize(s.width, w.kernel_w, w.stride_w, w.pad_w);
  const int64_t pixels = s.height * s.width, windows = out_h * out_w;
  const Floats x = Random(s.planes * pixels, 1), dy = Random(s.planes * windows, 2);
  Floats want_y;
  Positions want_positions;
  Doubles want_dx(x.size());
  for (int64_t p = 0; p < s.planes; ++p) {
    for (int64_t oy = 0; oy < out_h; ++oy) {
      for (int64_t ox = 0; ox < out_w; ++ox) {
        int64_t best = -1;
        for (int64_t iy = oy * w.stride_h - w.pad_h; iy < oy * w.stride_h - w.pad_h + w.kernel_h;
             ++iy) {
          for (int64_t ix = ox * w.stride_w - w.pad_w; ix < ox * w.stride_w - w.pad_w + w.kernel_w;
               ++ix) {
            if (iy < 0 || iy >= s.height || ix < 0 || ix >= s.width) continue;
            const int64_t at = iy * s.width + ix;
            if (best < 0 || x[p * pixels + at] > x[p * pixels + best]) best = at;
          }
        }
        want_dx[p * pixels + best] += dy[want_y.size()];
        want_y.push_back(x[p * pixels + best]);
        want_positions.push_back(static_cast<int32_t>(best));
      }
    }
  }
  Floats y = Garbage(s.planes * windows), dx = Garbage(s.planes * pixels);
  Positions positions(y.size(), -7);
  MaxPool2dForward(x.data(), s, y.data(), positions.data());
  MaxPool2dBackward(dy.data(), positions.data(), s.planes, windows, pixels, dx.data());
  EXPECT_EQ(y, want_y);
  EXPECT_EQ(positions, want_positions);
  ExpectClose(dx, want_dx, 1e-6);
}

TEST(MaxPool2d, MatchesPlainLoops) {
  CheckAgainstPlainLoops({6, 8, 8, {2, 2, 2, 2, 0, 0}});
  CheckAgainstPlainLoops({5, 9, 31, {3, 3, 1, 1, 1, 1}});
  CheckAgainstPlainLoops({4, 7, 10, {3, 2, 2, 3, 1, 1}});
  CheckAgainstPlainLoops({3, 1, 1, {2, 2, 1, 1, 1, 1}});
  CheckAgainstPlainLoops({1, 4, 50, {4, 5, 1, 2, 2, 2}});
  CheckAgainstPlainLoops({0, 4, 4, {2, 2, 2, 2, 0, 0}});
}

TEST(MaxPool2d, TakesTheFirstOfEqualsAndAnyNan) {
  const Pool2dShape shape{1, 2, 2, {2, 2, 2, 2, 0, 0}};
  float y = 0;
  int32_t position = -7;
  const Floats equal(4, -std::numeric_limits<float>::infinity());
  MaxPool2dForward(equal.data(), shape, &y, &position);
  EXPECT_EQ(y, equal[0]);
  EXPECT_EQ(position, 0);
  const Floats with_nan{1, std::numeric_limits<float>::quiet_NaN(), 3, 2};
  MaxPool2dForward(with_nan.data(), shape, &y, &position);
  EXPECT_TRUE(std::isnan(y));
  EXPECT_EQ(position, 1);
}

TEST(MaxPool2d, RejectsPaddingAboveHalfTheKernelAndEmptyPlanes) {
  float v[64] = {};
  int32_t positions[64] = {};
  EXPECT_THROW(MaxPool2dForward(v, {1, 2, 2, {2, 2, 1, 1, 2, 0}}, v, positions),
               std::invalid_argument);
  EXPECT_THROW(MaxPool2dForward(v, {1, 0, 2, {2, 2, 1, 1, 1, 1}}, v, positions),
               std::invalid_argument);
}

TEST(MaxPool2d, BackwardRejectsPositionsOutsideThePlane) {
  const float dy = 1;
  Floats dx = Garbage(4);
  for (int32_t wrong : {-1, 4}) {
    EXPECT_THROW(MaxPool2dBackward(&dy, &wrong, 1, 1, 4, dx.data()), std::out_of_range);
  }
  EXPECT_EQ(dx, Garbage(4));
}

}  // namespace
}  // namespace oar
