// The only file that is compiled with OAR_VERSION, OAR_VARIANT, OAR_ISA, OAR_COMMIT and
// OAR_CUDA_ARCHS, so a new commit recompiles nothing else.

#include <sstream>
#include <string>
#include <vector>

#include "oar/oar.h"

namespace oar {
namespace {

// Read off the compiler, not off the build's options: this is what the kernels really got.
constexpr const char* kVector =
#if defined(__AVX512F__)
    "avx512";
#elif defined(__AVX2__) && defined(__FMA__)
    "avx2+fma";
#elif defined(__AVX2__)
    "avx2";
#elif defined(__AVX__)
    "avx";
#elif defined(__SSE4_2__)
    "sse4.2";
#elif defined(__SSE2__)
    "sse2";
#elif defined(__ARM_NEON)
    "neon";
#else
    "none";
#endif

constexpr const char* kCompiler =
#if defined(__clang__)
    __VERSION__;  // Clang's own text starts with its name
#else
    "gcc " __VERSION__;
#endif

constexpr bool kOpenMp =
#ifdef _OPENMP
    true;
#else
    false;
#endif

std::vector<std::string> Words(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

}  // namespace

BuildInfo GetBuildInfo() {
  return {OAR_VERSION,           OAR_VARIANT, OAR_ISA,   kVector,
          Words(OAR_CUDA_ARCHS), OAR_COMMIT,  kCompiler, kOpenMp};
}

}  // namespace oar
