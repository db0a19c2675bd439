// The kernels of oar::cuda beside those of oar, whose own tests hold them to plain loops in double.
// Compiled twice: for a GPU, where without one every test is skipped and says why, and with the
// kernels emulated on the CPU.

#include "oar/cuda.h"

#include <limits>
#include <stdexcept>
#include <string>

#include "../../src/cuda/divisor.h"
#include "oar/oar.h"
#include "reference.h"

namespace oar {
namespace {

// A sum of n float32 products in another order differs by some 1e-7 * sqrt(n); those below have a
// few hundred, the weight's gradients some thousand.
constexpr double kElementwise = 1e-5, kSums = 1e-4;

class Cuda : public testing::Test {
 protected:
  void SetUp() override {
    const std::string why = cuda::WhyUnavailable();
    if (!why.empty()) GTEST_SKIP() << "not run, no GPU: " << why;
  }
};

// A copy of host memory on the device.
template <typename T>
class Device {
 public:
  explicit Device(const std::vector<T>& values)
      : size_(values.size()), data_(static_cast<T*>(cuda::Allocate(size_ * sizeof(T), nullptr))) {
    cuda::CopyToDevice(data_, values.data(), size_ * sizeof(T), nullptr);
  }
  ~Device() { cuda::Free(data_, nullptr); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  operator T*() { return data_; }

  std::vector<T> Values() const {
    std::vector<T> values(size_);
    cuda::CopyToHost(values.data(), data_, size_ * sizeof(T), nullptr);
    return values;
  }

 private:
  size_t size_;
  T* data_;
};

using FloatsOnDevice = Device<float>;

void ExpectNear(const Device<float>& got, const Floats& want, double tolerance) {
  ExpectClose(got.Values(), Doubles(want.begin(), want.end()), tolerance);
}

FloatsOnDevice Output(int64_t n) { return FloatsOnDevice(Garbage(n)); }

TEST(CudaDivisor, DividesEveryNumberBelowTwoToThe31) {
  for (int64_t d : {1, 2, 3, 5, 7, 9, 10, 49, 64, 65, 100, 3136, 65535, 65537, 1 << 20, 999999937,
                    (1 << 30) - 1, 1 << 30, 2147483647}) {
    const cuda::Divisor divisor(d);
    for (int64_t q = 0; q * d < int64_t{1} << 31; q += std::max<int64_t>((1 << 26) / d, 1)) {
      for (int64_t n : {q * d, q * d + d / 2, q * d + d - 1}) {
        if (n >= int64_t{1} << 31) continue;
        const int quotient = divisor.Quotient(static_cast<int>(n));
        ASSERT_EQ(quotient, n / d) << n << " / " << d;
        ASSERT_EQ(divisor.Remainder(static_cast<int>(n), quotient), n % d);
      }
    }
  }
}

// ---- Linear

void CheckLinear(int64_t batch, int64_t in, int64_t out) {
  SCOPED_TRACE(testing::Message() << batch << " x " << in << " x " << out);
  const Floats x = Random(batch * in, 1), weight = Random(out * in, 2), bias = Random(out, 3),
               dy = Random(batch * out, 4);
  Device<float> dev_x(x), dev_weight(weight), dev_bias(bias), dev_dy(dy);
  Floats y = Garbage(batch * out);
  for (bool has_bias : {true, false}) {
    LinearForward(x.data(), weight.data(), has_bias ? bias.data() : nullptr, batch, in, out,
                  y.data());
    auto dev_y = Output(batch * out);
    cuda::LinearForward(dev_x, dev_weight, has_bias ? static_cast<float*>(dev_bias) : nullptr,
                        batch, in, out, dev_y);
    ExpectNear(dev_y, y, kSums);
  }
  Floats dx = Garbage(batch * in), dweight = Garbage(out * in), dbias = Garbage(out);
  LinearBackward(dy.data(), x.data(), weight.data(), batch, in, out, dx.data(), dweight.data(),
                 dbias.data());
  auto dev_dx = Output(batch * in), dev_dweight = Output(out * in), dev_dbias = Output(out);
  cuda::LinearBackward(dev_dy, dev_x, dev_weight, batch, in, out, dev_dx, dev_dweight, dev_dbias);
  ExpectNear(dev_dx, dx, kSums);
  ExpectNear(dev_dweight, dweight, kSums);
  ExpectNear(dev_dbias, dbias, kSums);
}

// Around the tiles' sides (64 and 128), the slices' depth (16) and the parts' (256).
TEST_F(Cuda, LinearOfEmptyAndSmallMatrices) {
  CheckLinear(0, 3, 4);
  CheckLinear(3, 0, 4);
  CheckLinear(3, 4, 0);
  CheckLinear(1, 1, 1);
  CheckLinear(5, 7, 9);
}

TEST_F(Cuda, LinearOfSizesAroundTheTiles) {
  CheckLinear(64, 16, 64);
  CheckLinear(65, 17, 63);
  CheckLinear(33, 129, 66);
  CheckLinear(1, 300, 1);
}

TEST_F(Cuda, LinearOfDeepProductsInParts) {
  CheckLinear(7, 1000, 30);
  CheckLinear(1100, 5, 6);
}

TEST_F(Cuda, LinearOfLargeTiles) { CheckLinear(1030, 40, 1025); }

TEST_F(Cuda, ResultsOfSumsAreTheSameEachTime) {
  const Floats x = Random(50 * 2000, 1), weight = Random(20 * 2000, 2);
  Device<float> dev_x(x), dev_weight(weight);
  auto first = Output(50 * 20), second = Output(50 * 20);
  cuda::LinearForward(dev_x, dev_weight, nullptr, 50, 2000, 20, first);
  cuda::LinearForward(dev_x, dev_weight, nullptr, 50, 2000, 20, second);
  EXPECT_EQ(first.Values(), second.Values());
}

// ---- Activations

TEST_F(Cuda, Activations) {
  for (int64_t n : {0, 1, 255, 256, 257, 70001}) {
    SCOPED_TRACE(n);
    Floats x = Random(n, 1), dy = Random(n, 2), want = Garbage(n);
    for (float& value : x) value *= 3;
    Device<float> dev_x(x), dev_dy(dy);
    auto got = Output(n);
    ReluForward(x.data(), n, want.data());
    cuda::ReluForward(dev_x, n, got);
    EXPECT_EQ(got.Values(), want);
    ReluBackward(dy.data(), x.data(), n, want.data());
    cuda::ReluBackward(dev_dy, dev_x, n, got);
    EXPECT_EQ(got.Values(), want);
    GeluForward(x.data(), n, want.data());
    cuda::GeluForward(dev_x, n, got);
    ExpectNear(got, want, kElementwise);
    GeluBackward(dy.data(), x.data(), n, want.data());
    cuda::GeluBackward(dev_dy, dev_x, n, got);
    ExpectNear(got, want, kElementwise);
  }
}

TEST_F(Cuda, ReluKeepsNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Device<float> x(Floats{nan, -1, 2});
  auto y = Output(3);
  cuda::ReluForward(x, 3, y);
  const Floats got = y.Values();
  EXPECT_TRUE(std::isnan(got[0]));
  EXPECT_EQ(got[1], 0);
  EXPECT_EQ(got[2], 2);
}

// ---- Softmax cross-entropy

template <typename Index>
void CheckSoftmax(int64_t batch, int64_t classes) {
  SCOPED_TRACE(testing::Message() << batch << " x " << classes);
  Floats logits = Random(batch * classes, 1);
  for (float& value : logits) value *= 20;  // some probabilities vanish
  const Floats dloss = Random(batch, 2);
  std::vector<Index> labels(batch);
  for (int64_t i = 0; i < batch; ++i) labels[i] = static_cast<Index>(i * 7 % classes);
  Floats loss = Garbage(batch), probabilities = Garbage(batch * classes), dlogits = probabilities;
  SoftmaxCrossEntropyForward(logits.data(), labels.data(), batch, classes, loss.data(),
                             probabilities.data());
  SoftmaxCrossEntropyBackward(dloss.data(), probabilities.data(), labels.data(), batch, classes,
                              dlogits.data());
  Device<float> dev_logits(logits), dev_dloss(dloss);
  Device<Index> dev_labels(labels);
  auto dev_loss = Output(batch), dev_probabilities = Output(batch * classes),
       dev_dlogits = Output(batch * classes);
  cuda::SoftmaxCrossEntropyForward(dev_logits, static_cast<const Index*>(dev_labels), batch,
                                   classes, dev_loss, dev_probabilities);
  cuda::SoftmaxCrossEntropyBackward(dev_dloss, dev_probabilities,
                                    static_cast<const Index*>(dev_labels), batch, classes,
                                    dev_dlogits);
  ExpectNear(dev_loss, loss, kElementwise);
  ExpectNear(dev_probabilities, probabilities, kElementwise);
  ExpectNear(dev_dlogits, dlogits, kElementwise);
}

TEST_F(Cuda, SoftmaxCrossEntropy) {
  CheckSoftmax<int32_t>(0, 10);
  CheckSoftmax<int32_t>(17, 10);
  CheckSoftmax<int64_t>(5, 1000);
  CheckSoftmax<int64_t>(3, 1);
}

TEST_F(Cuda, LabelsOutsideTheClassesThrowAndLeaveOutputsAlone) {
  Device<float> logits(Random(4 * 5, 1));
  for (int64_t wrong : {int64_t{-1}, int64_t{5}, int64_t{1} << 40}) {
    Device<int64_t> labels({0, 1, wrong, -7});
    auto loss = Output(4), probabilities = Output(20);
    const auto call = [&] {
      cuda::SoftmaxCrossEntropyForward(logits, static_cast<const int64_t*>(labels), 4, 5, loss,
                                       probabilities);
    };
    EXPECT_THROW(call(), std::out_of_range);
    try {
      call();
    } catch (const std::out_of_range& error) {
      EXPECT_EQ(error.what(), "labels[2] is " + std::to_string(wrong) + ", outside [0, 5)");
    }
    EXPECT_EQ(loss.Values(), Garbage(4));
    EXPECT_EQ(probabilities.Values(), Garbage(20));
  }
}

// ---- Layer norm

void CheckLayerNorm(int64_t batch, int64_t features) {
  SCOPED_TRACE(testing::Message() << batch << " x " << features);
  const int64_t n = batch * features;
  const Floats x = Random(n, 1), gamma = Random(features, 2), beta = Random(features, 3),
               dy = Random(n, 4);
  Floats y = Garbage(n), mean = Garbage(batch), rstd = Garbage(batch);
  LayerNormForward(x.data(), gamma.data(), beta.data(), batch, features, 1e-5f, y.data(),
                   mean.data(), rstd.data());
  Floats dx = Garbage(n), dgamma = Garbage(features), dbeta = Garbage(features);
  LayerNormBackward(dy.data(), x.data(), gamma.data(), mean.data(), rstd.data(), batch, features,
                    dx.data(), dgamma.data(), dbeta.data());
  Device<float> dev_x(x), dev_gamma(gamma), dev_beta(beta), dev_dy(dy);
  auto dev_y = Output(n), dev_mean = Output(batch), dev_rstd = Output(batch);
  cuda::LayerNormForward(dev_x, dev_gamma, dev_beta, batch, features, 1e-5f, dev_y, dev_mean,
                         dev_rstd);
  auto dev_dx = Output(n), dev_dgamma = Output(features), dev_dbeta = Output(features);
  cuda::LayerNormBackward(dev_dy, dev_x, dev_gamma, dev_mean, dev_rstd, batch, features, dev_dx,
                          dev_dgamma, dev_dbeta);
  ExpectNear(dev_y, y, kSums);
  ExpectNear(dev_mean, mean, kElementwise);
  ExpectNear(dev_rstd, rstd, kSums);
  ExpectNear(dev_dx, dx, kSums);
  ExpectNear(dev_dgamma, dgamma, kSums);
  ExpectNear(dev_dbeta, dbeta, kSums);
}

TEST_F(Cuda, LayerNorm) {
  CheckLayerNorm(0, 5);
  CheckLayerNorm(6, 7);
  CheckLayerNorm(33, 64);
  CheckLayerNorm(5, 700);
}

// ---- Embedding bag

template <typename Index>
void CheckBags(const std::vector<Index>& indices, const std::vector<Index>& offsets, int64_t rows,
               int64_t dim) {
  const Floats weight = Random(rows * dim, 1);
  const int64_t bags = static_cast<int64_t>(offsets.size());
  const Floats dy = Random(bags * dim, 2);
  const Bags<Index> host{indices.data(), static_cast<int64_t>(indices.size()), offsets.data(),
                         bags};
  Device<Index> dev_indices(indices), dev_offsets(offsets);
  const Bags<Index> device{dev_indices, host.count, dev_offsets, bags};
  Device<float> dev_weight(weight), dev_dy(dy);
  for (BagMode mode : {BagMode::kSum, BagMode::kMean}) {
    Floats y = Garbage(bags * dim), dweight = Garbage(rows * dim);
    EmbeddingBagForward(weight.data(), host, rows, dim, mode, y.data());
    EmbeddingBagBackward(dy.data(), host, rows, dim, mode, dweight.data());
    auto dev_y = Output(bags * dim), dev_dweight = Output(rows * dim);
    cuda::EmbeddingBagForward(dev_weight, device, rows, dim, mode, dev_y);
    cuda::EmbeddingBagBackward(dev_dy, device, rows, dim, mode, dev_dweight);
    ExpectNear(dev_y, y, kElementwise);
    ExpectNear(dev_dweight, dweight, kElementwise);
  }
}

TEST_F(Cuda, EmbeddingBag) {
  CheckBags<int64_t>({5, 0, 0, 2, 1}, {0, 3, 3}, 6, 3);
  CheckBags<int32_t>({5, 0, 0, 2, 1, 4, 4}, {0, 0, 2, 7}, 6, 300);
  CheckBags<int32_t>({}, {}, 4, 3);
  CheckBags<int32_t>({}, {0, 0}, 4, 3);
}

TEST_F(Cuda, EmbeddingBagRefusesWhatTheCpuRefuses) {
  Device<float> weight(Random(6 * 3, 1));
  auto y = Output(30);
  const auto call = [&](const std::vector<int64_t>& indices, const std::vector<int64_t>& offsets) {
    Device<int64_t> dev_indices(indices), dev_offsets(offsets);
    const Bags<int64_t> bags{dev_indices, static_cast<int64_t>(indices.size()), dev_offsets,
                             static_cast<int64_t>(offsets.size())};
    cuda::EmbeddingBagForward(weight, bags, 6, 3, BagMode::kSum, y);
  };
  EXPECT_THROW(call({0, 1}, {}), std::invalid_argument);
  EXPECT_THROW(call({0, 1}, {1, 2}), std::invalid_argument);
  EXPECT_THROW(call({0, 1}, {0, 2, 1}), std::invalid_argument);
  EXPECT_THROW(call({0, 1}, {0, 3}), std::invalid_argument);
  EXPECT_THROW(call({0, 6}, {0, 1}), std::out_of_range);
  EXPECT_EQ(y.Values(), Garbage(30));
}

// ---- Convolution

void CheckConv(const Conv2dShape& s) {
  const Window2d& w = s.window;
  SCOPED_TRACE(testing::Message() << "height " << s.height << ", kernel " << w.kernel_h
                                  << ", stride " << w.stride_h << ", padding " << w.pad_h);
  const int64_t out_h = OutputSize(s.height, w.kernel_h, w.stride_h, w.pad_h);
  const int64_t out_w = OutputSize(s.width, w.kernel_w, w.stride_w, w.pad_w);
  const int64_t inputs = s.batch * s.in_channels * s.height * s.width;
  const int64_t outputs = s.batch * s.out_channels * out_h * out_w;
  const int64_t weights = s.out_channels * s.in_channels * w.kernel_h * w.kernel_w;
  const Floats x = Random(inputs, 1), weight = Random(weights, 2), bias = Random(s.out_channels, 3),
               dy = Random(outputs, 4);
  Floats y = Garbage(outputs), dx = Garbage(inputs), dweight = Garbage(weights),
         dbias = Garbage(s.out_channels);
  Device<float> dev_x(x), dev_weight(weight), dev_bias(bias), dev_dy(dy);
  for (bool has_bias : {true, false}) {
    Conv2dForward(x.data(), weight.data(), has_bias ? bias.data() : nullptr, s, y.data());
    auto dev_y = Output(outputs);
    cuda::Conv2dForward(dev_x, dev_weight, has_bias ? static_cast<float*>(dev_bias) : nullptr, s,
                        dev_y);
    ExpectNear(dev_y, y, kSums);
  }
  Conv2dBackward(dy.data(), x.data(), weight.data(), s, dx.data(), dweight.data(), dbias.data());
  auto dev_dx = Output(inputs), dev_dweight = Output(weights), dev_dbias = Output(s.out_channels);
  cuda::Conv2dBackward(dev_dy, dev_x, dev_weight, s, dev_dx, dev_dweight, dev_dbias);
  ExpectNear(dev_dx, dx, kSums);
  ExpectNear(dev_dweight, dweight, kSums);
  ExpectNear(dev_dbias, dbias, kSums);
}

TEST_F(Cuda, Conv2d) {
  CheckConv({2, 3, 8, 9, 4, {3, 3, 1, 1, 1, 1}});
  CheckConv({1, 2, 7, 11, 5, {3, 2, 2, 3, 1, 0}});
  CheckConv({3, 1, 5, 5, 2, {5, 5, 1, 1, 0, 0}});
  CheckConv({2, 4, 6, 6, 3, {1, 1, 1, 1, 0, 0}});
  CheckConv({1, 3, 4, 5, 2, {2, 4, 3, 2, 2, 3}});
}

TEST_F(Cuda, Conv2dOfManyChannelsAndImages) {
  CheckConv({4, 20, 10, 10, 70, {3, 3, 1, 1, 1, 1}});
  CheckConv({9, 3, 20, 14, 6, {3, 3, 2, 2, 1, 1}});
}

TEST_F(Cuda, Conv2dOfNothing) {
  CheckConv({0, 3, 4, 4, 2, {3, 3, 1, 1, 1, 1}});
  CheckConv({2, 0, 4, 4, 2, {3, 3, 1, 1, 1, 1}});
  CheckConv({2, 3, 4, 4, 0, {3, 3, 1, 1, 1, 1}});
}

// ---- Max pooling

void CheckPool(const Pool2dShape& s) {
  const Window2d& w = s.window;
  const int64_t windows = OutputSize(s.height, w.kernel_h, w.stride_h, w.pad_h) *
                          OutputSize(s.width, w.kernel_w, w.stride_w, w.pad_w);
  const int64_t pixels = s.height * s.width;
  Floats x = Random(s.planes * pixels, 1);
  if (x.size() > 5) x[5] = std::numeric_limits<float>::quiet_NaN();
  const Floats dy = Random(s.planes * windows, 2);
  Floats y = Garbage(s.planes * windows), dx = Garbage(s.planes * pixels);
  std::vector<int32_t> positions(y.size(), -7);
  MaxPool2dForward(x.data(), s, y.data(), positions.data());
  MaxPool2dBackward(dy.data(), positions.data(), s.planes, windows, pixels, dx.data());
  Device<float> dev_x(x), dev_dy(dy);
  auto dev_y = Output(s.planes * windows), dev_dx = Output(s.planes * pixels);
  Device<int32_t> dev_positions(std::vector<int32_t>(y.size(), -7));
  cuda::MaxPool2dForward(dev_x, s, dev_y, dev_positions);
  cuda::MaxPool2dBackward(dev_dy, dev_positions, s.planes, windows, pixels, dev_dx);
  EXPECT_EQ(dev_positions.Values(), positions);
  const Floats got = dev_y.Values();
  for (size_t i = 0; i < y.size(); ++i) {
    EXPECT_TRUE(got[i] == y[i] || (std::isnan(got[i]) && std::isnan(y[i]))) << "at element " << i;
  }
  ExpectNear(dev_dx, dx, kElementwise);
}

TEST_F(Cuda, MaxPool2d) {
  CheckPool({6, 8, 8, {2, 2, 2, 2, 0, 0}});
  CheckPool({5, 9, 31, {3, 3, 1, 1, 1, 1}});
  CheckPool({4, 7, 10, {3, 2, 2, 3, 1, 1}});
  CheckPool({3, 1, 1, {2, 2, 1, 1, 1, 1}});
  CheckPool({0, 4, 4, {2, 2, 2, 2, 0, 0}});
}

TEST_F(Cuda, MaxPool2dTakesTheFirstOfEquals) {
  Device<float> x(Floats(4, -std::numeric_limits<float>::infinity()));
  auto y = Output(1);
  Device<int32_t> position({-7});
  cuda::MaxPool2dForward(x, {1, 2, 2, {2, 2, 2, 2, 0, 0}}, y, position);
  EXPECT_EQ(position.Values()[0], 0);
}

TEST_F(Cuda, PositionsOutsideThePlaneThrow) {
  Device<float> dy(Floats{1});
  auto dx = Output(4);
  for (int32_t wrong : {-1, 4}) {
    Device<int32_t> position({wrong});
    EXPECT_THROW(cuda::MaxPool2dBackward(dy, position, 1, 1, 4, dx), std::out_of_range);
  }
  EXPECT_EQ(dx.Values(), Garbage(4));
}

// ---- Adam

TEST_F(Cuda, AdamStep) {
  const int64_t n = 3000;
  Floats param = Random(n, 1), first(n), second(n);
  Device<float> dev_param(param), dev_first(first), dev_second(second);
  for (int64_t step = 1; step <= 3; ++step) {
    const Floats grad = Random(n, 10 + static_cast<unsigned>(step));
    Device<float> dev_grad(grad);
    AdamStep(grad.data(), n, step, {}, param.data(), first.data(), second.data());
    cuda::AdamStep(dev_grad, n, step, {}, dev_param, dev_first, dev_second);
  }
  ExpectNear(dev_param, param, kElementwise);
  ExpectNear(dev_first, first, kElementwise);
  ExpectNear(dev_second, second, kElementwise);
}

// ---- What is refused before the device is asked, so on any machine

TEST(CudaErrors, WrongArgumentsAreThoseOfTheCpu) {
  float* none = nullptr;
  EXPECT_THROW(cuda::LinearForward(none, none, none, -1, 1, 1, none), std::invalid_argument);
  EXPECT_THROW(cuda::LinearForward(none, none, none, 1, int64_t{1} << 30, 1, none),
               std::invalid_argument);
  EXPECT_THROW(cuda::ReluForward(none, -1, none), std::invalid_argument);
  EXPECT_THROW(cuda::LayerNormForward(none, none, none, 1, 0, 1e-5f, none, none, none),
               std::invalid_argument);
  EXPECT_THROW(cuda::LayerNormForward(none, none, none, 1, 2, -1, none, none, none),
               std::invalid_argument);
  EXPECT_THROW(cuda::Conv2dForward(none, none, none, {1, 1, 2, 2, 1, {3, 3, 1, 1, 0, 0}}, none),
               std::invalid_argument);
  EXPECT_THROW(cuda::MaxPool2dForward(none, {1, 2, 2, {2, 2, 1, 1, 2, 0}}, none, nullptr),
               std::invalid_argument);
  EXPECT_THROW(cuda::AdamStep(none, 1, 0, {}, none, none, none), std::invalid_argument);
}

#ifndef OAR_CUDA_EMULATED
TEST(CudaErrors, WithoutAGpuEveryCallSaysSo) {
  const std::string why = cuda::WhyUnavailable();
  if (why.empty()) GTEST_SKIP() << "not run: this machine has a GPU";
  EXPECT_EQ(why.find('\n'), std::string::npos);
  float value = 0;
  try {
    cuda::ReluForward(&value, 1, &value);
    FAIL() << "a kernel ran";
  } catch (const cuda::Error& error) {
    EXPECT_EQ(std::string(error.what()).rfind("CUDA: Relu: ", 0), 0u) << error.what();
  }
  EXPECT_THROW(cuda::Allocate(4, nullptr), cuda::Error);
  EXPECT_EQ(cuda::DeviceCount(), 0);
}
#endif

}  // namespace
}  // namespace oar
