// The kernels' functions for Python: each checks what it is handed, and calls the kernel without
// the GIL. Every check names the argument; the public functions with their docstrings are in
// oar/ops.py.
//
// Each extension module includes this once, after it has defined, in namespace oar_python,
//   namespace kernels   where the kernels are
//   class Backend       where its arrays are: Import reads one, Out<T> makes one, Run(body) calls
//                       body(stream...) without the GIL, Define gives a function to Python

#ifndef OAR_PYTHON_KERNELS_H_
#define OAR_PYTHON_KERNELS_H_

#include <iterator>
#include <type_traits>

#include "arguments.h"
#include "oar/oar.h"

namespace oar_python {

using In = Argument<Backend, false>;
using InOut = Argument<Backend, true>;
template <typename T>
using Out = Backend::Out<T>;
using Floats = Out<float>;

// Reads an argument and its shape; `rank` axes of any size.
inline In Array(Backend& on, nb::handle object, const char* name, size_t rank) {
  In array(on, object, name);
  array.RequireShape(Shape(rank, kAny));
  return array;
}

inline const float* FloatsOrNull(Backend& on, nb::handle object, const char* name,
                                 const Shape& expected) {
  return object.is_none() ? nullptr : In(on, object, name).Data<float>(expected);
}

// Calls body with a null int32_t or int64_t pointer that stands for the arrays' common type.
template <typename Body>
auto WithIndexType(const In& array, const Body& body) {
  if (array.Is<int32_t>()) return body(static_cast<const int32_t*>(nullptr));
  if (array.Is<int64_t>()) return body(static_cast<const int64_t*>(nullptr));
  array.ThrowWrongType("int32 or int64");
}

template <typename Pointer>
using Pointee = std::remove_const_t<std::remove_pointer_t<Pointer>>;

// ---- Functions, in the header's order
// ------------------------------------------------------------

inline nb::object Linear(Backend& on, nb::handle x_, nb::handle weight_, nb::handle bias_) {
  const In x = Array(on, x_, "x", 2), weight = Array(on, weight_, "weight", 2);
  const int64_t batch = x.shape(0), in = x.shape(1), out = weight.shape(0);
  const float* px = x.Data<float>();
  const float* pw = weight.Data<float>({kAny, in});
  const float* pb = FloatsOrNull(on, bias_, "bias", {out});
  Floats y(on, {batch, out});
  on.Run([&](auto... stream) {
    kernels::LinearForward(px, pw, pb, batch, in, out, y.data(), stream...);
  });
  return y.ToPython();
}

inline nb::tuple LinearBackward(Backend& on, nb::handle dy_, nb::handle x_, nb::handle weight_) {
  const In dy(on, dy_, "dy"), x = Array(on, x_, "x", 2), weight = Array(on, weight_, "weight", 2);
  const int64_t batch = x.shape(0), in = x.shape(1), out = weight.shape(0);
  const float* px = x.Data<float>();
  const float* pw = weight.Data<float>({kAny, in});
  const float* pdy = dy.Data<float>({batch, out});
  Floats dx(on, {batch, in}), dweight(on, {out, in}), dbias(on, {out});
  on.Run([&](auto... stream) {
    kernels::LinearBackward(pdy, px, pw, batch, in, out, dx.data(), dweight.data(), dbias.data(),
                            stream...);
  });
  return nb::make_tuple(dx.ToPython(), dweight.ToPython(), dbias.ToPython());
}

template <auto kKernel>
nb::object Activation(Backend& on, nb::handle x_) {
  const In x(on, x_, "x");
  const float* px = x.Data<float>();
  Floats y(on, x.shape());
  on.Run([&](auto... stream) { kKernel(px, x.size(), y.data(), stream...); });
  return y.ToPython();
}

template <auto kKernel>
nb::object ActivationBackward(Backend& on, nb::handle dy_, nb::handle x_) {
  const In dy(on, dy_, "dy"), x(on, x_, "x");
  const float* px = x.Data<float>();
  const float* pdy = dy.Data<float>(x.shape());
  Floats dx(on, x.shape());
  on.Run([&](auto... stream) { kKernel(pdy, px, x.size(), dx.data(), stream...); });
  return dx.ToPython();
}

inline nb::tuple SoftmaxCrossEntropy(Backend& on, nb::handle logits_, nb::handle labels_) {
  const In logits = Array(on, logits_, "logits", 2), labels(on, labels_, "labels");
  const int64_t batch = logits.shape(0), classes = logits.shape(1);
  const float* p_logits = logits.Data<float>();
  Floats loss(on, {batch}), probabilities(on, {batch, classes});
  WithIndexType(labels, [&](auto type) {
    const auto* p_labels = labels.Data<Pointee<decltype(type)>>({batch});
    on.Run([&](auto... stream) {
      kernels::SoftmaxCrossEntropyForward(p_logits, p_labels, batch, classes, loss.data(),
                                          probabilities.data(), stream...);
    });
  });
  return nb::make_tuple(loss.ToPython(), probabilities.ToPython());
}

inline nb::object SoftmaxCrossEntropyBackward(Backend& on, nb::handle dloss_,
                                              nb::handle probabilities_, nb::handle labels_) {
  const In dloss(on, dloss_, "dloss"),
      probabilities = Array(on, probabilities_, "probabilities", 2), labels(on, labels_, "labels");
  const int64_t batch = probabilities.shape(0), classes = probabilities.shape(1);
  const float* p_probabilities = probabilities.Data<float>();
  const float* p_dloss = dloss.Data<float>({batch});
  Floats dlogits(on, {batch, classes});
  WithIndexType(labels, [&](auto type) {
    const auto* p_labels = labels.Data<Pointee<decltype(type)>>({batch});
    on.Run([&](auto... stream) {
      kernels::SoftmaxCrossEntropyBackward(p_dloss, p_probabilities, p_labels, batch, classes,
                                           dlogits.data(), stream...);
    });
  });
  return dlogits.ToPython();
}

inline nb::tuple LayerNorm(Backend& on, nb::handle x_, nb::handle gamma_, nb::handle beta_,
                           float eps) {
  const In x = Array(on, x_, "x", 2), gamma(on, gamma_, "gamma"), beta(on, beta_, "beta");
  const int64_t batch = x.shape(0), features = x.shape(1);
  const float* px = x.Data<float>();
  const float* p_gamma = gamma.Data<float>({features});
  const float* p_beta = beta.Data<float>({features});
  Floats y(on, {batch, features}), mean(on, {batch}), rstd(on, {batch});
  on.Run([&](auto... stream) {
    kernels::LayerNormForward(px, p_gamma, p_beta, batch, features, eps, y.data(), mean.data(),
                              rstd.data(), stream...);
  });
  return nb::make_tuple(y.ToPython(), mean.ToPython(), rstd.ToPython());
}

inline nb::tuple LayerNormBackward(Backend& on, nb::handle dy_, nb::handle x_, nb::handle gamma_,
                                   nb::handle mean_, nb::handle rstd_) {
  const In dy(on, dy_, "dy"), x = Array(on, x_, "x", 2), gamma(on, gamma_, "gamma"),
                              mean(on, mean_, "mean"), rstd(on, rstd_, "rstd");
  const int64_t batch = x.shape(0), features = x.shape(1);
  const float* px = x.Data<float>();
  const float* pdy = dy.Data<float>(x.shape());
  const float* p_gamma = gamma.Data<float>({features});
  const float* p_mean = mean.Data<float>({batch});
  const float* p_rstd = rstd.Data<float>({batch});
  Floats dx(on, {batch, features}), dgamma(on, {features}), dbeta(on, {features});
  on.Run([&](auto... stream) {
    kernels::LayerNormBackward(pdy, px, p_gamma, p_mean, p_rstd, batch, features, dx.data(),
                               dgamma.data(), dbeta.data(), stream...);
  });
  return nb::make_tuple(dx.ToPython(), dgamma.ToPython(), dbeta.ToPython());
}

inline oar::BagMode ParseMode(const std::string& mode) {
  if (mode == "sum") return oar::BagMode::kSum;
  if (mode == "mean") return oar::BagMode::kMean;
  ThrowValueError("mode: expected 'sum' or 'mean', got '" + mode + "'");
}

template <typename Index>
oar::Bags<Index> MakeBags(const In& indices, const In& offsets) {
  return {indices.Data<Index>({kAny}), indices.size(), offsets.Data<Index>({kAny}), offsets.size()};
}

inline nb::object EmbeddingBag(Backend& on, nb::handle weight_, nb::handle indices_,
                               nb::handle offsets_, const std::string& mode_) {
  const In weight = Array(on, weight_, "weight", 2), indices(on, indices_, "indices"),
           offsets = Array(on, offsets_, "offsets", 1);
  const int64_t rows = weight.shape(0), dim = weight.shape(1);
  const float* pw = weight.Data<float>();
  const oar::BagMode mode = ParseMode(mode_);
  Floats y(on, {offsets.size(), dim});
  WithIndexType(indices, [&](auto type) {
    const auto bags = MakeBags<Pointee<decltype(type)>>(indices, offsets);
    on.Run([&](auto... stream) {
      kernels::EmbeddingBagForward(pw, bags, rows, dim, mode, y.data(), stream...);
    });
  });
  return y.ToPython();
}

inline nb::object EmbeddingBagBackward(Backend& on, nb::handle dy_, nb::handle indices_,
                                       nb::handle offsets_, int64_t rows,
                                       const std::string& mode_) {
  const In dy = Array(on, dy_, "dy", 2), indices(on, indices_, "indices"),
           offsets(on, offsets_, "offsets");
  if (rows < 0) ThrowValueError("rows: expected at least 0, got " + std::to_string(rows));
  const int64_t dim = dy.shape(1);
  offsets.RequireShape({dy.shape(0)});
  const float* pdy = dy.Data<float>();
  const oar::BagMode mode = ParseMode(mode_);
  Floats dweight(on, {rows, dim});
  WithIndexType(indices, [&](auto type) {
    const auto bags = MakeBags<Pointee<decltype(type)>>(indices, offsets);
    on.Run([&](auto... stream) {
      kernels::EmbeddingBagBackward(pdy, bags, rows, dim, mode, dweight.data(), stream...);
    });
  });
  return dweight.ToPython();
}

// Height, width pairs come from ops.py as four numbers, checked to lie in [0, 2^31).
inline oar::Conv2dShape ConvShape(const In& x, const In& weight, int64_t stride_h, int64_t stride_w,
                                  int64_t pad_h, int64_t pad_w) {
  weight.RequireShape({kAny, x.shape(1), kAny, kAny});
  return {x.shape(0),      x.shape(1),
          x.shape(2),      x.shape(3),
          weight.shape(0), {weight.shape(2), weight.shape(3), stride_h, stride_w, pad_h, pad_w}};
}

inline Shape ConvOutput(const oar::Conv2dShape& s) {
  const oar::Window2d& w = s.window;
  return {s.batch, s.out_channels, oar::OutputSize(s.height, w.kernel_h, w.stride_h, w.pad_h),
          oar::OutputSize(s.width, w.kernel_w, w.stride_w, w.pad_w)};
}

inline nb::object Conv2d(Backend& on, nb::handle x_, nb::handle weight_, nb::handle bias_,
                         int64_t stride_h, int64_t stride_w, int64_t pad_h, int64_t pad_w) {
  const In x = Array(on, x_, "x", 4), weight = Array(on, weight_, "weight", 4);
  const oar::Conv2dShape shape = ConvShape(x, weight, stride_h, stride_w, pad_h, pad_w);
  const float* px = x.Data<float>();
  const float* pw = weight.Data<float>();
  const float* pb = FloatsOrNull(on, bias_, "bias", {shape.out_channels});
  Floats y(on, ConvOutput(shape));
  on.Run([&](auto... stream) { kernels::Conv2dForward(px, pw, pb, shape, y.data(), stream...); });
  return y.ToPython();
}

inline nb::tuple Conv2dBackward(Backend& on, nb::handle dy_, nb::handle x_, nb::handle weight_,
                                int64_t stride_h, int64_t stride_w, int64_t pad_h, int64_t pad_w) {
  const In dy(on, dy_, "dy"), x = Array(on, x_, "x", 4), weight = Array(on, weight_, "weight", 4);
  const oar::Conv2dShape shape = ConvShape(x, weight, stride_h, stride_w, pad_h, pad_w);
  const float* px = x.Data<float>();
  const float* pw = weight.Data<float>();
  const float* pdy = dy.Data<float>(ConvOutput(shape));
  Floats dx(on, x.shape()), dweight(on, weight.shape()), dbias(on, {shape.out_channels});
  on.Run([&](auto... stream) {
    kernels::Conv2dBackward(pdy, px, pw, shape, dx.data(), dweight.data(), dbias.data(), stream...);
  });
  return nb::make_tuple(dx.ToPython(), dweight.ToPython(), dbias.ToPython());
}

inline nb::tuple MaxPool2d(Backend& on, nb::handle x_, int64_t kernel_h, int64_t kernel_w,
                           int64_t stride_h, int64_t stride_w, int64_t pad_h, int64_t pad_w) {
  const In x = Array(on, x_, "x", 4);
  const oar::Pool2dShape shape{x.shape(0) * x.shape(1),
                               x.shape(2),
                               x.shape(3),
                               {kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w}};
  const float* px = x.Data<float>();
  const Shape out{x.shape(0), x.shape(1), oar::OutputSize(x.shape(2), kernel_h, stride_h, pad_h),
                  oar::OutputSize(x.shape(3), kernel_w, stride_w, pad_w)};
  Floats y(on, out);
  Out<int32_t> positions(on, out);
  on.Run([&](auto... stream) {
    kernels::MaxPool2dForward(px, shape, y.data(), positions.data(), stream...);
  });
  return nb::make_tuple(y.ToPython(), positions.ToPython());
}

inline nb::object MaxPool2dBackward(Backend& on, nb::handle dy_, nb::handle positions_,
                                    int64_t height, int64_t width) {
  const In dy = Array(on, dy_, "dy", 4), positions(on, positions_, "positions");
  const float* pdy = dy.Data<float>();
  const int32_t* pp = positions.Data<int32_t>(dy.shape());
  Floats dx(on, {dy.shape(0), dy.shape(1), height, width});
  on.Run([&](auto... stream) {
    kernels::MaxPool2dBackward(pdy, pp, dy.shape(0) * dy.shape(1), dy.shape(2) * dy.shape(3),
                               height * width, dx.data(), stream...);
  });
  return dx.ToPython();
}

inline void AdamStep(Backend& on, nb::handle param_, nb::handle grad_, nb::handle first_,
                     nb::handle second_, int64_t step, float learning_rate, float beta1,
                     float beta2, float eps) {
  const InOut param(on, param_, "param"), first(on, first_, "first"), second(on, second_, "second");
  const In grad(on, grad_, "grad");
  float* p_param = param.Data<float>();
  const float* p_grad = grad.Data<float>(param.shape());
  float* p_first = first.Data<float>(param.shape());
  float* p_second = second.Data<float>(param.shape());
  const int64_t n = param.size();
  uintptr_t starts[] = {reinterpret_cast<uintptr_t>(p_param), reinterpret_cast<uintptr_t>(p_grad),
                        reinterpret_cast<uintptr_t>(p_first),
                        reinterpret_cast<uintptr_t>(p_second)};
  std::sort(std::begin(starts), std::end(starts));
  for (size_t i = 0; i + 1 < std::size(starts) && n > 0; ++i) {
    if (starts[i + 1] - starts[i] < static_cast<size_t>(n) * sizeof(float)) {
      ThrowValueError("param, grad, first and second must not share memory");
    }
  }
  on.Run([&](auto... stream) {
    kernels::AdamStep(p_grad, n, step, {learning_rate, beta1, beta2, eps}, p_param, p_first,
                      p_second, stream...);
  });
}

inline void DefineKernels(nb::module_& m) {
  using nb::literals::operator""_a;

  Backend::Define(m, "linear", &Linear, "x"_a.none(), "weight"_a.none(), "bias"_a.none());
  Backend::Define(m, "linear_backward", &LinearBackward, "dy"_a.none(), "x"_a.none(),
                  "weight"_a.none());
  Backend::Define(m, "relu", &Activation<kernels::ReluForward>, "x"_a.none());
  Backend::Define(m, "relu_backward", &ActivationBackward<kernels::ReluBackward>, "dy"_a.none(),
                  "x"_a.none());
  Backend::Define(m, "gelu", &Activation<kernels::GeluForward>, "x"_a.none());
  Backend::Define(m, "gelu_backward", &ActivationBackward<kernels::GeluBackward>, "dy"_a.none(),
                  "x"_a.none());
  Backend::Define(m, "softmax_cross_entropy", &SoftmaxCrossEntropy, "logits"_a.none(),
                  "labels"_a.none());
  Backend::Define(m, "softmax_cross_entropy_backward", &SoftmaxCrossEntropyBackward,
                  "dloss"_a.none(), "probabilities"_a.none(), "labels"_a.none());
  Backend::Define(m, "layer_norm", &LayerNorm, "x"_a.none(), "gamma"_a.none(), "beta"_a.none(),
                  "eps"_a);
  Backend::Define(m, "layer_norm_backward", &LayerNormBackward, "dy"_a.none(), "x"_a.none(),
                  "gamma"_a.none(), "mean"_a.none(), "rstd"_a.none());
  Backend::Define(m, "embedding_bag", &EmbeddingBag, "weight"_a.none(), "indices"_a.none(),
                  "offsets"_a.none(), "mode"_a);
  Backend::Define(m, "embedding_bag_backward", &EmbeddingBagBackward, "dy"_a.none(),
                  "indices"_a.none(), "offsets"_a.none(), "rows"_a, "mode"_a);
  Backend::Define(m, "conv2d", &Conv2d, "x"_a.none(), "weight"_a.none(), "bias"_a.none(),
                  "stride_h"_a, "stride_w"_a, "pad_h"_a, "pad_w"_a);
  Backend::Define(m, "conv2d_backward", &Conv2dBackward, "dy"_a.none(), "x"_a.none(),
                  "weight"_a.none(), "stride_h"_a, "stride_w"_a, "pad_h"_a, "pad_w"_a);
  Backend::Define(m, "max_pool2d", &MaxPool2d, "x"_a.none(), "kernel_h"_a, "kernel_w"_a,
                  "stride_h"_a, "stride_w"_a, "pad_h"_a, "pad_w"_a);
  Backend::Define(m, "max_pool2d_backward", &MaxPool2dBackward, "dy"_a.none(), "positions"_a.none(),
                  "height"_a, "width"_a);
  Backend::Define(m, "adam_step", &AdamStep, "param"_a.none(), "grad"_a.none(), "first"_a.none(),
                  "second"_a.none(), "step"_a, "learning_rate"_a, "beta1"_a, "beta2"_a, "eps"_a);
}

}  // namespace oar_python

#endif  // OAR_PYTHON_KERNELS_H_
