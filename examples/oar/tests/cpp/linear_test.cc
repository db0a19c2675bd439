#include <stdexcept>
#include <tuple>

#include "oar/oar.h"
#include "reference.h"

namespace oar {
namespace {

using Sizes = std::tuple<int64_t, int64_t, int64_t>;  // batch, in, out

class Linear : public testing::TestWithParam<Sizes> {
 protected:
  int64_t batch = std::get<0>(GetParam()), in = std::get<1>(GetParam()),
          out = std::get<2>(GetParam());
  Floats x = Random(batch * in, 1), weight = Random(out * in, 2), bias = Random(out, 3),
         dy = Random(batch * out, 4);
};

TEST_P(Linear, ForwardMatchesPlainLoops) {
  Doubles want(batch * out), want_without_bias(batch * out);
  for (int64_t i = 0; i < batch; ++i) {
    for (int64_t j = 0; j < out; ++j) {
      double sum = 0;
      for (int64_t p = 0; p < in; ++p) sum += double{x[i * in + p]} * weight[j * in + p];
      want_without_bias[i * out + j] = sum;
      want[i * out + j] = sum + bias[j];
    }
  }
  Floats y = Garbage(batch * out);
  LinearForward(x.data(), weight.data(), bias.data(), batch, in, out, y.data());
  ExpectClose(y, want, 1e-4);
  y = Garbage(batch * out);
  LinearForward(x.data(), weight.data(), nullptr, batch, in, out, y.data());
  ExpectClose(y, want_without_bias, 1e-4);
}

TEST_P(Linear, BackwardMatchesPlainLoops) {
  Doubles want_dx(batch * in), want_dweight(out * in), want_dbias(out);
  for (int64_t i = 0; i < batch; ++i) {
    for (int64_t j = 0; j < out; ++j) {
      const double g = dy[i * out + j];
      want_dbias[j] += g;
      for (int64_t p = 0; p < in; ++p) {
        want_dx[i * in + p] += g * weight[j * in + p];
        want_dweight[j * in + p] += g * x[i * in + p];
      }
    }
  }
  Floats dx = Garbage(batch * in), dweight = Garbage(out * in), dbias = Garbage(out);
  LinearBackward(dy.data(), x.data(), weight.data(), batch, in, out, dx.data(), dweight.data(),
                 dbias.data());
  ExpectClose(dx, want_dx, 1e-4);
  ExpectClose(dweight, want_dweight, 1e-4);
  ExpectClose(dbias, want_dbias, 1e-4);
}

// Around the tile's sizes (6 rows, 8 or 16 columns) and the blocks' (96, 256, 1024).
INSTANTIATE_TEST_SUITE_P(Sizes, Linear,
                         testing::Values(Sizes{0, 3, 4}, Sizes{3, 0, 4}, Sizes{3, 4, 0},
                                         Sizes{1, 1, 1}, Sizes{1, 300, 1}, Sizes{5, 7, 9},
                                         Sizes{6, 16, 16}, Sizes{12, 32, 32}, Sizes{13, 33, 31},
                                         Sizes{97, 257, 15}, Sizes{7, 513, 1030},
                                         Sizes{200, 64, 129}));

TEST(LinearErrors, NegativeSizeThrows) {
  float value = 0;
  EXPECT_THROW(LinearForward(&value, &value, &value, -1, 1, 1, &value), std::invalid_argument);
}

}  // namespace
}  // namespace oar
