// The extension module oar._oar: the kernels on NumPy arrays, and what the build is.

#include <type_traits>

#include "arguments.h"
#include "oar/oar.h"

namespace oar_python {

namespace kernels = oar;

class Backend {
 public:
  static constexpr const char* kArrayText = "NumPy array in native byte order";

  template <bool kIsWritable>
  using Handle = std::conditional_t<kIsWritable, nb::ndarray<nb::device::cpu>,
                                    nb::ndarray<nb::ro, nb::device::cpu>>;

  template <typename T>
  class Out : public NumpyOut<T> {
   public:
    Out(Backend&, Shape shape) : NumpyOut<T>(std::move(shape)) {}
  };

  static std::string Hint() { return ""; }

  static std::string ContiguousHint(const std::string& name) {
    return "; pass numpy.ascontiguousarray(" + name + ")";
  }

  template <typename Array>
  bool Import(nb::handle object, const char*, Array& array) {
    return nb::try_cast(object, array, false);
  }

  template <typename Body>
  void Run(const Body& body) {
    nb::gil_scoped_release unlocked;
    body();
  }

  template <typename Result, typename... Arguments, typename... Extras>
  static void Define(nb::module_& m, const char* name, Result (*function)(Backend&, Arguments...),
                     const Extras&... extras) {
    m.def(
        name,
        [function](Arguments... arguments) {
          Backend on;
          return function(on, arguments...);
        },
        extras...);
  }
};

}  // namespace oar_python

#include "kernels.h"

namespace oar_python {
namespace {

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

}  // namespace
}  // namespace oar_python

NB_MODULE(_oar, m) {
  using nanobind::literals::operator""_a;

  m.def("build_info", &oar_python::BuildInfo);
  m.def("num_threads", &oar::NumThreads);
  m.def("set_num_threads", &oar::SetNumThreads, "n"_a);
  oar_python::DefineKernels(m);
}
