// What the extension modules share: reading array arguments, each check naming the argument, and
// making NumPy arrays. `On` is a module's class Backend: see kernels.h.

#ifndef OAR_PYTHON_ARGUMENTS_H_
#define OAR_PYTHON_ARGUMENTS_H_

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace oar_python {

namespace nb = nanobind;

using Shape = std::vector<int64_t>;

constexpr int64_t kAny = -1;  // in an expected shape: any size will do

// ---- Inputs
// --------------------------------------------------------------------------------------

inline std::string ShapeText(const Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += shape[i] == kAny ? "*" : std::to_string(shape[i]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

inline std::string DtypeText(nb::dlpack::dtype dtype) {
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

[[noreturn]] inline void ThrowTypeError(const std::string& message) {
  throw nb::type_error(message.c_str());
}

[[noreturn]] inline void ThrowValueError(const std::string& message) {
  throw nb::value_error(message.c_str());
}

// An array argument of the backend `On`, which names the device and knows how to look at an object
// of Python's; `kIsWritable` says whether the kernel writes to it.
template <typename On, bool kIsWritable>
class Argument {
 public:
  Argument(On& on, nb::handle object, const char* name) : name_(name) {
    if (!on.Import(object, name, array_)) {
      const std::string type = nb::cast<std::string>(object.type().attr("__name__"));
      ThrowTypeError(Name() + "expected " + (kIsWritable ? "a writable " : "a ") + On::kArrayText +
                     ", got " + type + On::Hint());
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
    if constexpr (kIsWritable) {
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
  nb::dlpack::dtype dtype() const { return array_.dtype(); }

 private:
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
        ThrowValueError(Name() + "expected a C-contiguous array" + On::ContiguousHint(name_));
      }
      expected *= shape_[i];
    }
  }

  std::string name_;
  typename On::template Handle<kIsWritable> array_;
  Shape shape_;
};

// ---- Outputs
// -------------------------------------------------------------------------------------

// A new NumPy array.
template <typename T>
class NumpyOut {
 public:
  explicit NumpyOut(Shape shape) : shape_(std::move(shape)) {
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

}  // namespace oar_python

#endif  // OAR_PYTHON_ARGUMENTS_H_
