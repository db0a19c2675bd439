// Scratch memory: uninitialised floats on a cache line's boundary.

#ifndef OAR_SRC_BUFFER_H_
#define OAR_SRC_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace oar {

class Buffer {
 public:
  explicit Buffer(int64_t floats)
      : data_(static_cast<float*>(
            ::operator new(static_cast<size_t>(floats) * sizeof(float), kAlignment))) {}

  float* data() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Delete {
    void operator()(float* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<float, Delete> data_;
};

}  // namespace oar

#endif  // OAR_SRC_BUFFER_H_
