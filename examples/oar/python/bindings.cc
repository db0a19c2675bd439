// The extension module oar._oar: it checks what Python hands in, releases the GIL and calls the
// kernels. Every check names the argument; the public functions with their docstrings are in
// oar/ops.py.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "oar/oar.h"

namespace nb = nanobind;

namespace {

using Shape = std::vector<int64_t>;

constexpr int64_t kAny = -1;  // in an expected shape: any size will do

// ---- Inputs
// --------------------------------------------------------------------------------------

std::string ShapeText(const Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += shape[i] == kAny ? "*" : std::to_string(shape[i]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string DtypeText(nb::dlpack::dtype dtype) {
  using Code = nb::dlpack::dtype_code;
  const std::string bits = std::to_string(dtype.bits);
  switch (static_cast<Code>(dtype.code)) {
    case Code::Int:
      return "int" + bits;
    case Code::UInt:
      return "uint" + bits;
    case Code::Float:
      return "float" + bits;
    case Code::Complex:
      return "complex" + bits;
    case Code::Bool:
      return "bool";
    default:
      return "another type";
  }
}

[[noreturn]] void ThrowTypeError(const std::string& message) {
  throw nb::type_error(message.c_str());
}

[[noreturn]] void ThrowValueError(const std::string& message) {
  throw nb::value_error(message.c_str());
}

// An array argument; `Handle` says whether it may be written.
template <typename Handle>
class Argument {
 public:
  Argument(nb::handle object, const char* name) : name_(name) {
    if (!nb::try_cast(object, array_, false)) {
      const std::string type = nb::cast<std::string>(object.type().attr("__name__"));
      ThrowTypeError(Name() + "expected " +
                     (std::is_same_v<Handle, Writable> ? "a writable" : "a") +
                     " NumPy array in native byte order, got " + type);
    }
    for (size_t i = 0; i < array_.ndim(); ++i) {
      shape_.push_back(static_cast<int64_t>(array_.shape(i)));
    }
    RequireContiguous();
  }

  template <typename T>
  bool Is() const {
    return array_.dtype() == nb::dtype<T>();
  }

  // The elements, which must be of type T and have the shape `expected`.
  template <typename T>
  auto Data(const Shape& expected) const {
    RequireShape(expected);
    return Data<T>();
  }

  template <typename T>
  auto Data() const {
    RequireType<T>();
    if constexpr (std::is_same_v<Handle, Writable>) {
      return static_cast<T*>(array_.data());
    } else {
      return static_cast<const T*>(array_.data());
    }
  }

  void RequireShape(const Shape& expected) const {
    const bool is_equal =
        std::equal(shape_.begin(), shape_.end(), expected.begin(), expected.end(),
                   [](int64_t got, int64_t want) { return want == kAny || got == want; });
    if (!is_equal) {
      ThrowValueError(Name() + "expected shape " + ShapeText(expected) + ", got " +
                      ShapeText(shape_));
    }
  }

  [[noreturn]] void ThrowWrongType(const std::string& expected) const {
    ThrowTypeError(Name() + "expected dtype " + expected + ", got " + DtypeText(array_.dtype()));
  }

  const Shape& shape() const { return shape_; }
  int64_t shape(size_t axis) const { return shape_[axis]; }
  int64_t size() const { return static_cast<int64_t>(array_.size()); }

 private:
  using Writable = nb::ndarray<nb::device::cpu>;

  std::string Name() const { return name_ + ": "; }

  template <typename T>
  void RequireType() const {
    if (!Is<T>()) ThrowWrongType(DtypeText(nb::dtype<T>()));
    if (reinterpret_cast<uintptr_t>(array_.data()) % alignof(T) != 0) {
      ThrowValueError(Name() + "the data is not aligned; pass a copy");
    }
  }

  void RequireContiguous() const {
    int64_t expected = 1;
    for (size_t i = shape_.size(); i-- > 0 && size() > 0;) {
      if (shape_[i] > 1 && array_.stride(i) != expected) {
        ThrowValueError(Name() + "expected a C-contiguous array; pass numpy.ascontiguousarray(" +
                        name_ + ")");
      }
      expected *= shape_[i];
    }
  }

  std::string name_;
  Handle array_;
  Shape shape_;
};

using In = Argument<nb::ndarray<nb::ro, nb::device::cpu>>;
using InOut = Argument<nb::ndarray<nb::device::cpu>>;

// Reads an argument and its shape; `rank` axes of any size.
In Array(nb::handle object, const char* name, size_t rank) {
  In array(object, name);
  array.RequireShape(Shape(rank, kAny));
  return array;
}

const float* FloatsOrNull(nb::handle object, const char* name, const Shape& expected) {
  return object.is_none() ? nullptr : In(object, name).Data<float>(expected);
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

// ---- Outputs
// -------------------------------------------------------------------------------------

// A new array that Python will own.
template <typename T>
class Out {
 public:
  explicit Out(Shape shape) : shape_(std::move(shape)) {
    size_t bytes = sizeof(T);
    for (int64_t size : shape_) {
      if (__builtin_mul_overflow(bytes, static_cast<size_t>(size), &bytes)) throw std::bad_alloc();
    }
    data_.reset(static_cast<T*>(::operator new(bytes, kAlignment)));
  }

  T* data() const { return data_.get(); }

  // Hands the memory over; this object is empty afterwards.
  nb::object ToPython() {
    const std::vector<size_t> shape(shape_.begin(), shape_.end());
    T* data = data_.get();
    const nb::capsule owner(data, [](void* p) noexcept { ::operator delete(p, kAlignment); });
    (void)data_.release();
    return nb::cast(nb::ndarray<nb::numpy, T>(data, shape.size(), shape.data(), owner));
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Delete {
    void operator()(T* data) const { ::operator delete(data, kAlignment); }
  };
  Shape shape_;
  std::unique_ptr<T, Delete> data_;
};

using Floats = Out<float>;

// ---- Functions, in the header's order
// ------------------------------------------------------------

nb::dict BuildInfo() {
  const oar::BuildInfo info = oar::GetBuildInfo();
  nb::dict result;
  result["version"] = info.version;
  result["variant"] = info.variant;
  result["isa"] = info.isa;
  result["vector"] = info.vector;
  result["cuda_archs"] = info.cuda_archs;
  result["commit"] = info.commit;
  result["compiler"] = info.compiler;
  result["openmp"] = info.openmp;
  return result;
}

nb::object Linear(nb::handle x_, nb::handle weight_, nb::handle bias_) {
  const In x = Array(x_, "x", 2), weight = Array(weight_, "weight", 2);
  const int64_t batch = x.shape(0), in = x.shape(1), out = weight.shape(0);
  const float* px = x.Data<float>();
  const float* pw = weight.Data<float>({kAny, in});
  const float* pb = FloatsOrNull(bias_, "bias", {out});
  Floats y({batch, out});
  {
    nb::gil_scoped_release unlocked;
    oar::LinearForward(px, pw, pb, batch, in, out, y.data());
  }
  return y.ToPython();
}

nb::tuple LinearBackward(nb::handle dy_, nb::handle x_, nb::handle weight_) {
  const In dy(dy_, "dy"), x = Array(x_, "x", 2), weight = Array(weight_, "weight", 2);
  const int64_t batch = x.shape(0), in = x.shape(1), out = weight.shape(0);
  const float* px = x.Data<float>();
  const float* pw = weight.Data<float>({kAny, in});
  const float* pdy = dy.Data<float>({batch, out});
  Floats dx({batch, in}), dweight({out, in}), dbias({out});
  {
    nb::gil_scoped_release unlocked;
    oar::LinearBackward(pdy, px, pw, batch, in, out, dx.data(), dweight.data(), dbias.data());
  }
  return nb::make_tuple(dx.ToPython(), dweight.ToPython(), dbias.ToPython());
}

template <void (*kKernel)(const float*, int64_t, float*)>
nb::object Activation(nb::handle x_) {
  const In x(x_, "x");
  const float* px = x.Data<float>();
  Floats y(x.shape());
  {
    nb::gil_scoped_release unlocked;
    kKernel(px, x.size(), y.data());
  }
  return y.ToPython();
}

template <void (*kKernel)(const float*, const float*, int64_t, float*)>
nb::object ActivationBackward(nb::handle dy_, nb::handle x_) {
  const In dy(dy_, "dy"), x(x_, "x");
  const float* px = x.Data<float>();
  const float* pdy = dy.Data<float>(x.shape());
  Floats dx(x.shape());
  {
    nb::gil_scoped_release unlocked;
    kKernel(pdy, px, x.size(), dx.data());
  }
  return dx.ToPython();
}

nb::tuple SoftmaxCrossEntropy(nb::handle logits_, nb::handle labels_) {
  const In logits = Array(logits_, "logits", 2), labels(labels_, "labels");
  const int64_t batch = logits.shape(0), classes = logits.shape(1);
  const float* p_logits = logits.Data<float>();
  Floats loss({batch}), probabilities({batch, classes});
  WithIndexType(labels, [&](auto type) {
    const auto* p_labels = labels.Data<Pointee<decltype(type)>>({batch});
    nb::gil_scoped_release unlocked;
    oar::SoftmaxCrossEntropyForward(p_logits, p_labels, batch, classes, loss.data(),
                                    probabilities.data());
  });
  return nb::make_tuple(loss.ToPython(), probabilities.ToPython());
}

nb::object SoftmaxCrossEntropyBackward(nb::handle dloss_, nb::handle probabilities_,
                                       nb::handle labels_) {
  const In dloss(dloss_, "dloss"), probabilities = Array(probabilities_, "probabilities", 2),
                                   labels(labels_, "labels");
  const int64_t batch = probabilities.shape(0), classes = probabilities.shape(1);
  const float* p_probabilities = probabilities.Data<float>();
  const float* p_dloss = dloss.Data<float>({batch});
  Floats dlogits({batch, classes});
  WithIndexType(labels, [&](auto type) {
    const auto* p_labels = labels.Data<Pointee<decltype(type)>>({batch});
    nb::gil_scoped_release unlocked;
    oar::SoftmaxCrossEntropyBackward(p_dloss, p_probabilities, p_labels, batch, classes,
                                     dlogits.data());
  });
  return dlogits.ToPython();
}

nb::tuple LayerNorm(nb::handle x_, nb::handle gamma_, nb::handle beta_, float eps) {
  const In x = Array(x_, "x", 2), gamma(gamma_, "gamma"), beta(beta_, "beta");
  const int64_t batch = x.shape(0), features = x.shape(1);
  const float* px = x.Data<float>();
  const float* p_gamma = gamma.Data<float>({features});
  const float* p_beta = beta.Data<float>({features});
  Floats y({batch, features}), mean({batch}), rstd({batch});
  {
    nb::gil_scoped_release unlocked;
    oar::LayerNormForward(px, p_gamma, p_beta, batch, features, eps, y.data(), mean.data(),
                          rstd.data());
  }
  return nb::make_tuple(y.ToPython(), mean.ToPython(), rstd.ToPython());
}

nb::tuple LayerNormBackward(nb::handle dy_, nb::handle x_, nb::handle gamma_, nb::handle mean_,
                            nb::handle rstd_) {
  const In dy(dy_, "dy"), x = Array(x_, "x", 2), gamma(gamma_, "gamma"), mean(mean_, "mean"),
                          rstd(rstd_, "rstd");
  const int64_t batch = x.shape(0), features = x.shape(1);
  const float* px = x.Data<float>();
  const float* pdy = dy.Data<float>(x.shape());
  const float* p_gamma = gamma.Data<float>({features});
  const float* p_mean = mean.Data<float>({batch});
  const float* p_rstd = rstd.Data<float>({batch});
  Floats dx({batch, features}), dgamma({features}), dbeta({features});
  {
    nb::gil_scoped_release unlocked;
    oar::LayerNormBackward(pdy, px, p_gamma, p_mean, p_rstd, batch, features, dx.data(),
                           dgamma.data(), dbeta.data());
  }
  return nb::make_tuple(dx.ToPython(), dgamma.ToPython(), dbeta.ToPython());
}

oar::BagMode ParseMode(const std::string& mode) {
  if (mode == "sum") return oar::BagMode::kSum;
  if (mode == "mean") return oar::BagMode::kMean;
  ThrowValueError("mode: expected 'sum' or 'mean', got '" + mode + "'");
}

template <typename Index>
oar::Bags<Index> MakeBags(const In& indices, const In& offsets) {
  return {indices.Data<Index>({kAny}), indices.size(), offsets.Data<Index>({kAny}), offsets.size()};
}

nb::object EmbeddingBag(nb::handle weight_, nb::handle indices_, nb::handle offsets_,
                        const std::string& mode_) {
  const In weight = Array(weight_, "weight", 2), indices(indices_, "indices"),
           offsets = Array(offsets_, "offsets", 1);
  const int64_t rows = weight.shape(0), dim = weight.shape(1);
  const float* pw = weight.Data<float>();
  const oar::BagMode mode = ParseMode(mode_);
  Floats y({offsets.size(), dim});
  WithIndexType(indices, [&](auto type) {
    const auto bags = MakeBags<Pointee<decltype(type)>>(indices, offsets);
    nb::gil_scoped_release unlocked;
    oar::EmbeddingBagForward(pw, bags, rows, dim, mode, y.data());
  });
  return y.ToPython();
}

nb::object EmbeddingBagBackward(nb::handle dy_, nb::handle indices_, nb::handle offsets_,
                                int64_t rows, const std::string& mode_) {
  const In dy = Array(dy_, "dy", 2), indices(indices_, "indices"), offsets(offsets_, "offsets");
  if (rows < 0) ThrowValueError("rows: expected at least 0, got " + std::to_string(rows));
  const int64_t dim = dy.shape(1);
  offsets.RequireShape({dy.shape(0)});
  const float* pdy = dy.Data<float>();
  const oar::BagMode mode = ParseMode(mode_);
  Floats dweight({rows, dim});
  WithIndexType(indices, [&](auto type) {
    const auto bags = MakeBags<Pointee<decltype(type)>>(indices, offsets);
    nb::gil_scoped_release unlocked;
    oar::EmbeddingBagBackward(pdy, bags, rows, dim, mode, dweight.data());
  });
  return dweight.ToPython();
}

// Height, width pairs come from ops.py as four numbers, checked to lie in [0, 2^31).
oar::Conv2dShape ConvShape(const In& x, const In& weight, int64_t stride_h, int64_t stride_w,
                           int64_t pad_h, int64_t pad_w) {
  weight.RequireShape({kAny, x.shape(1), kAny, kAny});
  return {x.shape(0),      x.shape(1),
          x.shape(2),      x.shape(3),
          weight.shape(0), {weight.shape(2), weight.shape(3), stride_h, stride_w, pad_h, pad_w}};
}

Shape ConvOutput(const oar::Conv2dShape& s) {
  const oar::Window2d& w = s.window;
  return {s.batch, s.out_channels, oar::OutputSize(s.height, w.kernel_h, w.stride_h, w.pad_h),
          oar::OutputSize(s.width, w.kernel_w, w.stride_w, w.pad_w)};
}

nb::object Conv2d(nb::handle x_, nb::handle weight_, nb::handle bias_, int64_t stride_h,
                  int64_t stride_w, int64_t pad_h, int64_t pad_w) {
  const In x = Array(x_, "x", 4), weight = Array(weight_, "weight", 4);
  const oar::Conv2dShape shape = ConvShape(x, weight, stride_h, stride_w, pad_h, pad_w);
  const float* px = x.Data<float>();
  const float* pw = weight.Data<float>();
  const float* pb = FloatsOrNull(bias_, "bias", {shape.out_channels});
  Floats y(ConvOutput(shape));
  {
    nb::gil_scoped_release unlocked;
    oar::Conv2dForward(px, pw, pb, shape, y.data());
  }
  return y.ToPython();
}

nb::tuple Conv2dBackward(nb::handle dy_, nb::handle x_, nb::handle weight_, int64_t stride_h,
                         int64_t stride_w, int64_t pad_h, int64_t pad_w) {
  const In dy(dy_, "dy"), x = Array(x_, "x", 4), weight = Array(weight_, "weight", 4);
  const oar::Conv2dShape shape = ConvShape(x, weight, stride_h, stride_w, pad_h, pad_w);
  const float* px = x.Data<float>();
  const float* pw = weight.Data<float>();
  const float* pdy = dy.Data<float>(ConvOutput(shape));
  Floats dx(x.shape()), dweight(weight.shape()), dbias({shape.out_channels});
  {
    nb::gil_scoped_release unlocked;
    oar::Conv2dBackward(pdy, px, pw, shape, dx.data(), dweight.data(), dbias.data());
  }
  return nb::make_tuple(dx.ToPython(), dweight.ToPython(), dbias.ToPython());
}

nb::tuple MaxPool2d(nb::handle x_, int64_t kernel_h, int64_t kernel_w, int64_t stride_h,
                    int64_t stride_w, int64_t pad_h, int64_t pad_w) {
  const In x = Array(x_, "x", 4);
  const oar::Pool2dShape shape{x.shape(0) * x.shape(1),
                               x.shape(2),
                               x.shape(3),
                               {kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w}};
  const float* px = x.Data<float>();
  const Shape out{x.shape(0), x.shape(1), oar::OutputSize(x.shape(2), kernel_h, stride_h, pad_h),
                  oar::OutputSize(x.shape(3), kernel_w, stride_w, pad_w)};
  Floats y(out);
  Out<int32_t> positions(out);
  {
    nb::gil_scoped_release unlocked;
    oar::MaxPool2dForward(px, shape, y.data(), positions.data());
  }
  return nb::make_tuple(y.ToPython(), positions.ToPython());
}

nb::object MaxPool2dBackward(nb::handle dy_, nb::handle positions_, int64_t height, int64_t width) {
  const In dy = Array(dy_, "dy", 4), positions(positions_, "positions");
  const float* pdy = dy.Data<float>();
  const int32_t* pp = positions.Data<int32_t>(dy.shape());
  Floats dx({dy.shape(0), dy.shape(1), height, width});
  {
    nb::gil_scoped_release unlocked;
    oar::MaxPool2dBackward(pdy, pp, dy.shape(0) * dy.shape(1), dy.shape(2) * dy.shape(3),
                           height * width, dx.data());
  }
  return dx.ToPython();
}

void AdamStep(nb::handle param_, nb::handle grad_, nb::handle first_, nb::handle second_,
              int64_t step, float learning_rate, float beta1, float beta2, float eps) {
  const InOut param(param_, "param"), first(first_, "first"), second(second_, "second");
  const In grad(grad_, "grad");
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
  nb::gil_scoped_release unlocked;
  oar::AdamStep(p_grad, n, step, {learning_rate, beta1, beta2, eps}, p_param, p_first, p_second);
}

}  // namespace

NB_MODULE(_oar, m) {
  using nb::literals::operator""_a;

  m.def("build_info", &BuildInfo);
  m.def("num_threads", &oar::NumThreads);
  m.def("set_num_threads", &oar::SetNumThreads, "n"_a);
  m.def("linear", &Linear, "x"_a.none(), "weight"_a.none(), "bias"_a.none());
  m.def("linear_backward", &LinearBackward, "dy"_a.none(), "x"_a.none(), "weight"_a.none());
  m.def("relu", &Activation<oar::ReluForward>, "x"_a.none());
  m.def("relu_backward", &ActivationBackward<oar::ReluBackward>, "dy"_a.none(), "x"_a.none());
  m.def("gelu", &Activation<oar::GeluForward>, "x"_a.none());
  m.def("gelu_backward", &ActivationBackward<oar::GeluBackward>, "dy"_a.none(), "x"_a.none());
  m.def("softmax_cross_entropy", &SoftmaxCrossEntropy, "logits"_a.none(), "labels"_a.none());
  m.def("softmax_cross_entropy_backward", &SoftmaxCrossEntropyBackward, "dloss"_a.none(),
        "probabilities"_a.none(), "labels"_a.none());
  m.def("layer_norm", &LayerNorm, "x"_a.none(), "gamma"_a.none(), "beta"_a.none(), "eps"_a);
  m.def("layer_norm_backward", &LayerNormBackward, "dy"_a.none(), "x"_a.none(), "gamma"_a.none(),
        "mean"_a.none(), "rstd"_a.none());
  m.def("embedding_bag", &EmbeddingBag, "weight"_a.none(), "indices"_a.none(), "offsets"_a.none(),
        "mode"_a);
  m.def("embedding_bag_backward", &EmbeddingBagBackward, "dy"_a.none(), "indices"_a.none(),
        "offsets"_a.none(), "rows"_a, "mode"_a);
  m.def("conv2d", &Conv2d, "x"_a.none(), "weight"_a.none(), "bias"_a.none(), "stride_h"_a,
        "stride_w"_a, "pad_h"_a, "pad_w"_a);
  m.def("conv2d_backward", &Conv2dBackward, "dy"_a.none(), "x"_a.none(), "weight"_a.none(),
        "stride_h"_a, "stride_w"_a, "pad_h"_a, "pad_w"_a);
  m.def("max_pool2d", &MaxPool2d, "x"_a.none(), "kernel_h"_a, "kernel_w"_a, "stride_h"_a,
        "stride_w"_a, "pad_h"_a, "pad_w"_a);
  m.def("max_pool2d_backward", &MaxPool2dBackward, "dy"_a.none(), "positions"_a.none(), "height"_a,
        "width"_a);
  m.def("adam_step", &AdamStep, "param"_a.none(), "grad"_a.none(), "first"_a.none(),
        "second"_a.none(), "step"_a, "learning_rate"_a, "beta1"_a, "beta2"_a, "eps"_a);
}
