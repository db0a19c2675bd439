#include <stdexcept>

#include "oar/oar.h"
#include "reference.h"

namespace oar {
namespace {

// Leaves the number of threads as it was.
class Threads : public testing::Test {
 protected:
  ~Threads() override { SetNumThreads(before_); }

 private:
  int before_ = NumThreads();
};

TEST_F(Threads, CountIsKept) {
  SetNumThreads(3);
  EXPECT_EQ(NumThreads(), GetBuildInfo().openmp ? 3 : 1);
}

TEST_F(Threads, CountOutOfRangeThrows) {
  EXPECT_THROW(SetNumThreads(0), std::invalid_argument);
  EXPECT_THROW(SetNumThreads(1025), std::invalid_argument);
}

TEST_F(Threads, ResultsDoNotDependOnTheCount) {
  const Conv2dShape conv{7, 20, 30, 29, 33, {3, 3, 1, 1, 1, 1}};
  const int64_t x_size = 7 * 20 * 30 * 29, w_size = 33 * 20 * 9, y_size = 7 * 33 * 30 * 29;
  const int64_t batch = 211, in = 300, out = 190;
  const Floats x = Random(x_size, 1), weight = Random(w_size, 2), dy = Random(y_size, 3);
  const auto run = [&](int threads) {
    SetNumThreads(threads);
    std::vector<Floats> results;
    const auto add = [&](int64_t n) {
      results.push_back(Garbage(n));
      return results.back().data();
    };
    Conv2dForward(x.data(), weight.data(), nullptr, conv, add(y_size));
    float* dx = add(x_size);
    float* dweight = add(w_size);
    Conv2dBackward(dy.data(), x.data(), weight.data(), conv, dx, dweight, add(33));
    LinearForward(x.data(), dy.data(), nullptr, batch, in, out, add(batch * out));
    dx = add(batch * in);
    dweight = add(out * in);
    LinearBackward(dy.data(), x.data(), x.data(), batch, in, out, dx, dweight, add(out));
    GeluForward(x.data(), x_size, add(x_size));
    const int64_t rows = x_size / in;
    float* y = add(rows * in);
    float* mean = add(rows);
    LayerNormForward(x.data(), dy.data(), dy.data(), rows, in, 1e-5f, y, mean, add(rows));
    return results;
  };
  const std::vector<Floats> one = run(1);
  for (int threads : {2, 3, 7}) {
    const std::vector<Floats> many = run(threads);
    for (size_t i = 0; i < one.size(); ++i) {
      EXPECT_TRUE(many[i] == one[i]) << "result " << i << " with " << threads << " threads";
    }
  }
}

}  // namespace
}  // namespace oar
