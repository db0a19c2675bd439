// Argument checks shared by the kernels.

#ifndef OAR_SRC_CHECKS_H_
#define OAR_SRC_CHECKS_H_

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace oar {

inline void Require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

inline void RequireSizes(std::initializer_list<int64_t> sizes) {
  for (int64_t size : sizes) Require(size >= 0, "sizes must not be negative");
}

// Every values[i] must lie in [0, limit).
template <typename Index>
void RequireInRange(const Index* values, int64_t count, int64_t limit, const char* name) {
  for (int64_t i = 0; i < count; ++i) {
    if (values[i] < 0 || values[i] >= limit) {
      throw std::out_of_range(std::string(name) + "[" + std::to_string(i) + "] is " +
                              std::to_string(values[i]) + ", outside [0, " + std::to_string(limit) +
                              ")");
    }
  }
}

}  // namespace oar

#endif  // OAR_SRC_CHECKS_H_
