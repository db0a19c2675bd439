// The extension module oar._oar_cuda: the kernels on arrays in a GPU's memory. They come in from
// any library with the DLPack protocol, and go out as oar.cuda.Array, which has it too: no element
// is copied on the way.

#include <nanobind/stl/optional.h>

#include <optional>
#include <type_traits>
#include <utility>

#include "arguments.h"
#include "oar/cuda.h"

namespace oar_python {

namespace kernels = oar::cuda;
using oar::cuda::DeviceScope;
using oar::cuda::Event;
using oar::cuda::Stream;

constexpr int kDlCuda = nb::device::cuda::value;

// A stream as Python's libraries number it: DLPack has 1 for the legacy default stream, CUDA null.
Stream StreamOf(uintptr_t number) {
  return number <= 1 ? nullptr : reinterpret_cast<Stream>(number);
}

// Memory on a GPU that Python owns.
//
// Work on it is enqueued, not done, so it knows when it is ready: after `ready_`, or where that is
// null, after what the legacy default stream has been given so far.
class DeviceArray {
 public:
  DeviceArray(void* data, Shape shape, nb::dlpack::dtype dtype, int device, Stream stream)
      : data_(data), shape_(shape.begin(), shape.end()), dtype_(dtype), device_(device) {
    if (stream != nullptr) ready_ = oar::cuda::Record(stream);
  }

  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        shape_(std::move(other.shape_)),
        dtype_(other.dtype_),
        device_(other.device_),
        ready_(std::exchange(other.ready_, nullptr)),
        is_shared_(other.is_shared_) {}

  ~DeviceArray() {
    if (data_ != nullptr) {
      try {
        const DeviceScope scope(device_);
        // Streams whose handles may be gone by now could still be at work on it.
        if (is_shared_ || ready_ != nullptr) oar::cuda::SynchronizeDevice();
        oar::cuda::Free(data_, nullptr);
      } catch (const std::exception&) {
        // The driver is gone, and the memory with it: the process is at its end.
      }
    }
    oar::cuda::Destroy(ready_);
  }

  // Makes `stream` wait until the array is ready. The array's device is the current one.
  void UseOn(Stream stream) {
    if (ready_ != nullptr) {
      oar::cuda::Wait(stream, ready_);
    } else if (stream != nullptr) {
      const Event now = oar::cuda::Record(nullptr);
      oar::cuda::Wait(stream, now);
      oar::cuda::Destroy(now);
    }
    is_shared_ = is_shared_ || stream != nullptr;
  }

  // What is on `stream` now writes to it.
  void WrittenOn(Stream stream) {
    oar::cuda::Destroy(std::exchange(ready_, nullptr));
    if (stream != nullptr) ready_ = oar::cuda::Record(stream);
  }

  template <typename Handle>
  Handle View() const {
    return Handle(data_, shape_.size(), shape_.data(), nb::handle(), nullptr, dtype_, kDlCuda,
                  device_);
  }

  int device() const { return device_; }
  std::string Dtype() const { return DtypeText(dtype_); }
  nb::tuple ShapeTuple() const { return nb::tuple(nb::cast(shape_)); }
  nb::tuple DlpackDevice() const { return nb::make_tuple(kDlCuda, device_); }

  std::string Repr() const {
    return "oar.cuda.Array(shape=" + nb::cast<std::string>(nb::repr(ShapeTuple())) +
           ", dtype=" + Dtype() + ", device=" + std::to_string(device_) + ")";
  }

  // __dlpack__ of the protocol: whoever asks names the stream that must see the array ready, -1 for
  // none. Without a stream it is the legacy default one.
  static nb::object Dlpack(nb::handle self, const nb::kwargs& options) {
    DeviceArray& array = nb::cast<DeviceArray&>(self);
    int64_t stream = 1;
    if (options.contains("stream") && !nb::object(options["stream"]).is_none()) {
      stream = nb::cast<int64_t>(options["stream"]);
    }
    const DeviceScope scope(array.device_);
    if (stream != -1) array.UseOn(StreamOf(static_cast<uintptr_t>(stream)));
    array.is_shared_ = true;  // whoever has it may work on it with any stream
    using Plain = nb::ndarray<nb::array_api>;
    const Plain plain(array.data_, array.shape_.size(), array.shape_.data(), self, nullptr,
                      array.dtype_, kDlCuda, array.device_);
    return nb::cast(plain).attr("__dlpack__")(**options);
  }

 private:
  void* data_;
  std::vector<size_t> shape_;
  nb::dlpack::dtype dtype_;
  int device_;
  Event ready_ = nullptr;
  bool is_shared_ = false;  // whether more than the legacy default stream may have used it
};

class Backend {
 public:
  static constexpr const char* kArrayText = "CUDA array";

  template <bool kIsWritable>
  using Handle = std::conditional_t<kIsWritable, nb::ndarray<nb::device::cuda>,
                                    nb::ndarray<nb::ro, nb::device::cuda>>;

  // A new array on the device of the arguments that were imported before.
  template <typename T>
  class Out {
   public:
    Out(Backend& on, Shape shape) : on_(on), shape_(std::move(shape)) {
      size_t bytes = sizeof(T);
      for (int64_t size : shape_) {
        if (__builtin_mul_overflow(bytes, static_cast<size_t>(size), &bytes)) {
          throw std::bad_alloc();
        }
      }
      data_ = static_cast<T*>(oar::cuda::Allocate(bytes, on.stream_));
    }
    ~Out() { oar::cuda::Free(data_, on_.stream_); }
    Out(const Out&) = delete;
    Out& operator=(const Out&) = delete;

    T* data() const { return data_; }

    // Hands the memory over; this object is empty afterwards.
    nb::object ToPython() {
      DeviceArray array(data_, std::move(shape_), nb::dtype<T>(), on_.device_, on_.stream_);
      data_ = nullptr;
      return nb::cast(std::move(array));
    }

   private:
    Backend& on_;
    Shape shape_;
    T* data_;
  };

  explicit Backend(uintptr_t stream) : stream_(StreamOf(stream)) {}

  static std::string Hint() { return " (oar.cuda.from_numpy makes one of NumPy's)"; }

  static std::string ContiguousHint(const std::string& name) {
    return "; pass a contiguous copy of " + name;
  }

  // Makes `device` the current one until the end of the call; all its arrays must be there.
  void Use(int device, const char* name) {
    if (!scope_) {
      scope_.emplace(device);
      device_ = device;
    } else if (device != device_) {
      ThrowValueError(std::string(name) + ": expected an array on device " +
                      std::to_string(device_) + ", like those before it, got one on device " +
                      std::to_string(device));
    }
  }

  template <typename Array>
  bool Import(nb::handle object, const char* name, Array& handle) {
    if (nb::isinstance<DeviceArray>(object)) {
      DeviceArray& array = nb::cast<DeviceArray&>(object);
      Use(array.device(), name);
      array.UseOn(stream_);
      if constexpr (std::is_same_v<Array, Handle<true>>) written_.push_back(&array);
      handle = array.View<Array>();
      return true;
    }
    if (!nb::hasattr(object, "__dlpack_device__")) return false;
    const nb::tuple place = nb::tuple(object.attr("__dlpack_device__")());
    if (nb::cast<int>(nb::int_(place[0])) != kDlCuda) return false;
    Use(nb::cast<int>(nb::int_(place[1])), name);
    return nb::try_cast(Capsule(object), handle, false);
  }

  template <typename Body>
  void Run(const Body& body) {
    {
      nb::gil_scoped_release unlocked;
      body(stream_);
    }
    for (DeviceArray* array : written_) array->WrittenOn(stream_);
  }

  template <typename Result, typename... Arguments, typename... Extras>
  static void Define(nb::module_& m, const char* name, Result (*function)(Backend&, Arguments...),
                     const Extras&... extras) {
    using nb::literals::operator""_a;
    m.def(
        name,
        [function](Arguments... arguments, uintptr_t stream) {
          Backend on(stream);
          return function(on, arguments...);
        },
        extras..., "stream"_a);
  }

  Stream stream() const { return stream_; }

 private:
  // Asks for an object's elements, ready for our stream. Some libraries hand out what is read-only
  // by the protocol's version 1 alone.
  nb::object Capsule(nb::handle object) const {
    using nb::literals::operator""_a;
    const nb::object method = object.attr("__dlpack__");
    const nb::int_ stream(stream_ == nullptr ? 1 : reinterpret_cast<uintptr_t>(stream_));
    try {
      return method("stream"_a = stream);
    } catch (nb::python_error& error) {
      if (!error.matches(PyExc_BufferError)) throw;
    }
    return method("stream"_a = stream, "max_version"_a = nb::make_tuple(1, 0));
  }

  Stream stream_;
  int device_ = 0;
  std::optional<DeviceScope> scope_;
  std::vector<DeviceArray*> written_;  // the caller's, who holds them
};

}  // namespace oar_python

#include "kernels.h"

namespace oar_python {
namespace {

// Calls body with a null pointer to an array's type of element.
template <typename Body>
nb::object WithAnyType(nb::dlpack::dtype dtype, const Body& body) {
  if (dtype == nb::dtype<float>()) return body(static_cast<const float*>(nullptr));
  if (dtype == nb::dtype<int32_t>()) return body(static_cast<const int32_t*>(nullptr));
  if (dtype == nb::dtype<int64_t>()) return body(static_cast<const int64_t*>(nullptr));
  ThrowTypeError("array: expected dtype float32, int32 or int64, got " + DtypeText(dtype));
}

nb::object FromNumpy(const nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>& array, int device,
                     uintptr_t stream) {
  Backend on(stream);
  on.Use(device, "device");
  return WithAnyType(array.dtype(), [&](auto type) {
    using T = Pointee<decltype(type)>;
    Shape shape;
    for (size_t i = 0; i < array.ndim(); ++i) shape.push_back(static_cast<int64_t>(array.shape(i)));
    Out<T> copy(on, std::move(shape));
    on.Run([&](Stream s) {
      oar::cuda::CopyToDevice(copy.data(), array.data(), array.size() * sizeof(T), s);
    });
    return copy.ToPython();
  });
}

nb::object ToNumpy(nb::handle array_, uintptr_t stream) {
  Backend on(stream);
  const In array(on, array_, "array");
  return WithAnyType(array.dtype(), [&](auto type) {
    using T = Pointee<decltype(type)>;
    NumpyOut<T> copy(array.shape());
    const T* data = array.Data<T>();
    const size_t bytes = static_cast<size_t>(array.size()) * sizeof(T);
    on.Run([&](Stream s) { oar::cuda::CopyToHost(copy.data(), data, bytes, s); });
    return copy.ToPython();
  });
}

void Synchronize(int device) {
  nb::gil_scoped_release unlocked;
  const DeviceScope scope(device);
  oar::cuda::SynchronizeDevice();
}

// C++'s Error as Python's oar.cuda.Error, which that module defines in any build.
void Translate(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const oar::cuda::Error& error) {
    const nb::object type = nb::module_::import_("oar.cuda").attr("Error");
    PyErr_SetString(type.ptr(), error.what());
  }
}

}  // namespace
}  // namespace oar_python

NB_MODULE(_oar_cuda, m) {
  using namespace oar_python;
  using nanobind::literals::operator""_a;

  nb::register_exception_translator(&Translate);
  nb::class_<DeviceArray>(m, "Array", "float32, int32 or int64 values in a GPU's memory.")
      .def_prop_ro("shape", &DeviceArray::ShapeTuple, "Sizes of the axes.")
      .def_prop_ro("dtype", &DeviceArray::Dtype,
                   "Name of the type of element, such as ``float32``.")
      .def_prop_ro("device", &DeviceArray::device, "Number of the GPU.")
      .def("__repr__", &DeviceArray::Repr)
      .def("__dlpack_device__", &DeviceArray::DlpackDevice)
      .def("__dlpack__", [](nb::handle_t<DeviceArray> self, const nb::kwargs& options) {
        return DeviceArray::Dlpack(self, options);
      });
  m.def("device_count", &oar::cuda::DeviceCount);
  m.def("why_unavailable", &oar::cuda::WhyUnavailable);
  m.def("device_name", &oar::cuda::DeviceName, "device"_a);
  m.def("from_numpy", &FromNumpy, "array"_a, "device"_a, "stream"_a);
  m.def("to_numpy", &ToNumpy, "array"_a.none(), "stream"_a);
  m.def("synchronize", &Synchronize, "device"_a);
  DefineKernels(m);
}
