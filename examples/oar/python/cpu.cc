// oar._cpu, which oar imports first: it asks the CPU for the instruction set that the rest of this
// build was compiled for, and raises ImportError where that is lacking. The alternative is a
// program that dies of SIGILL somewhere. The compiler knows what a level of x86-64 holds; it counts
// AVX only where the operating system saves its registers.

#define Py_LIMITED_API 0x030A0000  // one file for Python 3.10 and all later ones
#include <Python.h>

namespace {

PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_cpu", nullptr, 0, nullptr, nullptr, nullptr, nullptr, nullptr,
};

#ifdef OAR_ISA
const char* refusal() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports(OAR_ISA)) return nullptr;
  return *OAR_REFUSAL ? OAR_REFUSAL
                      : "this build of Oar needs a CPU with " OAR_ISA ", which this one lacks";
}
#else
const char* refusal() { return nullptr; }
#endif

}  // namespace

PyMODINIT_FUNC PyInit__cpu() {
  if (const char* why = refusal()) {
    PyErr_SetString(PyExc_ImportError, why);
    return nullptr;
  }
  return PyModule_Create(&module);
}
