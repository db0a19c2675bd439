#include <stdexcept>

#include "oar/oar.h"
#include "reference.h"

namespace oar {

// So that a failing case prints its sizes.
void PrintTo(const Conv2dShape& s, std::ostream* out) {
  const Window2d& w = s.window;
  *out << s.batch << "x" << s.in_channels << "x" << s.height << "x" << s.width << " to "
       << s.out_channels << ", kernel " << w.kernel_h << "x" << w.kernel_w << ", stride "
       << w.stride_h << "x" << w.stride_w << ", padding " << w.pad_h << "x" << w.pad_w;
}

namespace {

class Conv2d : public testing::TestWithParam<Conv2dShape> {
 protected:
  Conv2dShape s = GetParam();
  Window2d w = s.window;
  int64_t out_h = OutputSize(s.height, w.kernel_h, w.stride_h, w.pad_h);
  int64_t out_w = OutputSize(s.width, w.kernel_w, w.stride_w, w.pad_w);
  int64_t x_size = s.batch * s.in_channels * s.height * s.width;
  int64_t weight_size = s.out_channels * s.in_channels * w.kernel_h * w.kernel_w;
  int64_t y_size = s.batch * s.out_channels * out_h * out_w;
  Floats x = Random(x_size, 1), weight = Random(weight_size, 2), bias = Random(s.out_channels, 3),
         dy = Random(y_size, 4);

  // Calls visit(x index, weight index, y index) for every product of the convolution.
  template <typename Visit>
  void ForEachProduct(Visit visit) const {
    for (int64_t n = 0; n < s.batch; ++n)
      for (int64_t o = 0; o < s.out_channels; ++o)
        for (int64_t oy = 0; oy < out_h; ++oy)
          for (int64_t ox = 0; ox < out_w; ++ox)
            for (int64_t c = 0; c < s.in_channels; ++c)
              for (int64_t ky = 0; ky < w.kernel_h; ++ky)
                for (int64_t kx = 0; kx < w.kernel_w; ++kx) {
                  const int64_t iy = oy * w.stride_h + ky - w.pad_h;
                  const int64_t ix = ox * w.stride_w + kx - w.pad_w;
                  if (iy < 0 || iy >= s.height || ix < 0 || ix >= s.width) continue;
                  visit(((n * s.in_channels + c) * s.height + iy) * s.width + ix,
                        ((o * s.in_channels + c) * w.kernel_h + ky) * w.kernel_w + kx,
                        ((n * s.out_channels + o) * out_h + oy) * out_w + ox);
                }
  }

  int64_t Channel(int64_t y_index) const { return y_index / (out_h * out_w) % s.out_channels; }
};

TEST_P(Conv2d, ForwardMatchesPlainLoops) {
  Doubles want(y_size);
  ForEachProduct(
      [&](int64_t xi, int64_t wi, int64_t yi) { want[yi] += double{x[xi]} * weight[wi]; });
  Floats y = Garbage(y_size);
  Conv2dForward(x.data(), weight.data(), nullptr, s, y.data());
  ExpectClose(y, want, 1e-4);
  for (int64_t i = 0; i < y_size; ++i) want[i] += bias[Channel(i)];
  y = Garbage(y_size);
  Conv2dForward(x.data(), weight.data(), bias.data(), s, y.data());
  ExpectClose(y, want, 1e-4);
}

TEST_P(Conv2d, BackwardMatchesPlainLoops) {
  Doubles want_dx(x_size), want_dweight(weight_size), want_dbias(s.out_channels);
  ForEachProduct([&](int64_t xi, int64_t wi, int64_t yi) {
    want_dx[xi] += double{dy[yi]} * weight[wi];
    want_dweight[wi] += double{dy[yi]} * x[xi];
  });
  for (int64_t i = 0; i < y_size; ++i) want_dbias[Channel(i)] += dy[i];
  Floats dx = Garbage(x_size), dweight = Garbage(weight_size), dbias = Garbage(s.out_channels);
  Conv2dBackward(dy.data(), x.data(), weight.data(), s, dx.data(), dweight.data(), dbias.data());
  ExpectClose(dx, want_dx, 2e-4);
  ExpectClose(dweight, want_dweight, 2e-4);
  ExpectClose(dbias, want_dbias, 2e-4);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Conv2d,
    testing::Values(Conv2dShape{2, 3, 8, 8, 4, {3, 3, 1, 1, 1, 1}},
                    Conv2dShape{1, 1, 1, 1, 1, {1, 1, 1, 1, 0, 0}},
                    Conv2dShape{3, 2, 9, 7, 5, {3, 2, 2, 3, 1, 0}},
                    Conv2dShape{1, 2, 5, 6, 3, {5, 6, 1, 1, 0, 0}},      // one window in all
                    Conv2dShape{2, 1, 2, 3, 2, {3, 3, 1, 1, 4, 5}},      // windows on padding only
                    Conv2dShape{2, 2, 1, 1, 2, {3, 3, 2, 2, 1, 1}},      // kernel above the image
                    Conv2dShape{40, 1, 4, 5, 3, {2, 2, 1, 1, 0, 0}},     // more images than parts
                    Conv2dShape{1, 40, 10, 11, 17, {3, 3, 1, 1, 1, 1}},  // several channel groups
                    Conv2dShape{1, 20, 100, 90, 7, {3, 3, 1, 1, 1, 1}},  // several pieces
                    Conv2dShape{0, 2, 4, 4, 3, {3, 3, 1, 1, 0, 0}},
                    Conv2dShape{2, 0, 4, 4, 3, {3, 3, 1, 1, 0, 0}},
                    Conv2dShape{2, 2, 4, 4, 0, {3, 3, 1, 1, 0, 0}}));

TEST(OutputSize, CountsWindowPositions) {
  EXPECT_EQ(OutputSize(8, 3, 1, 0), 6);
  EXPECT_EQ(OutputSize(8, 3, 2, 1), 4);
  EXPECT_EQ(OutputSize(0, 1, 1, 1), 2);
}

TEST(OutputSize, RejectsWhatCannotBeMeant) {
  EXPECT_THROW(OutputSize(4, 5, 1, 0), std::invalid_argument);
  EXPECT_THROW(OutputSize(4, 0, 1, 0), std::invalid_argument);
  EXPECT_THROW(OutputSize(4, 1, 0, 0), std::invalid_argument);
  EXPECT_THROW(OutputSize(4, 1, 1, -1), std::invalid_argument);
  EXPECT_THROW(OutputSize(-1, 1, 1, 1), std::invalid_argument);
  EXPECT_THROW(OutputSize(4, 1, 1, int64_t{1} << 62), std::invalid_argument);
}

}  // namespace
}  // namespace oar
