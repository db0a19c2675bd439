// Oar: forward and backward kernels of a few neural-network layers.
//
// Conventions of every function here:
//   * Arrays are float32, C-contiguous and caller-owned; sizes count elements. Any size may be zero
//     unless said otherwise, and a pointer to zero elements may be null.
//   * Outputs are overwritten, whatever they held. They must not overlap any other argument, and no
//     argument may change while the call runs.
//   * `dy` is the gradient of the loss with respect to the forward output `y`; `dx`, `dweight` and
//     so on are the gradients with respect to the argument of that name.
//   * Sizes that cannot be meant (negative, or a kernel larger than its input) throw
//     std::invalid_argument; an index or label outside its table throws std::out_of_range. Outputs
//     are untouched then. std::bad_alloc is thrown when scratch memory runs out.
//   * A result does not depend on the number of threads, bit for bit. It does depend on the vector
//     width and on fused multiply-add, so builds for different ISAs differ in the last digits.

#ifndef OAR_OAR_H_
#define OAR_OAR_H_

#include <cstdint>
#include <string>
#include <vector>

#define OAR_API __attribute__((visibility("default")))

namespace oar {

// ---- The build and its threads
// -------------------------------------------------------------------

struct BuildInfo {
  std::string version;                  // what the builder called this version
  std::string variant;                  // the row of the builder's variants table, e.g. "cpu"
  std::string isa;                      // the ISA the builder asked for, e.g. "x86-64-v3"
  std::string vector;                   // the widest vectors the compiler was allowed: "avx2+fma"
  std::vector<std::string> cuda_archs;  // "sm_80", "compute_90" (PTX); empty without CUDA
  std::string commit;                   // of the source, empty when unknown
  std::string compiler;                 // e.g. "gcc 14.2.0"
  bool openmp;                          // false: everything runs on the calling thread
};

OAR_API BuildInfo GetBuildInfo();

// Threads a kernel may use: at first what OpenMP would take (OMP_NUM_THREADS, else the CPUs this
// process may run on), and always 1 in a build without OpenMP.
OAR_API int NumThreads();

// For the whole process, from the next call on. Throws std::invalid_argument unless 1 <= n <= 1024.
OAR_API void SetNumThreads(int n);

// ---- Linear
// --------------------------------------------------------------------------------------

// y[batch, out] = x[batch, in] * weight[out, in]^T + bias[out]; a null bias counts as zeros.
OAR_API void LinearForward(const float* x, const float* weight, const float* bias, int64_t batch,
                           int64_t in, int64_t out, float* y);

// dx[batch, in], dweight[out, in] and dbias[out] from dy[batch, out].
OAR_API void LinearBackward(const float* dy, const float* x, const float* weight, int64_t batch,
                            int64_t in, int64_t out, float* dx, float* dweight, float* dbias);

// ---- Activations, elementwise on n values
// --------------------------------------------------------

// y = max(x, 0). A NaN stays a NaN.
OAR_API void ReluForward(const float* x, int64_t n, float* y);

// dx = dy where x > 0, else 0.
OAR_API void ReluBackward(const float* dy, const float* x, int64_t n, float* dx);

// y = x * Phi(x), Phi being the standard normal distribution function (the exact GELU, not its tanh
// form). The absolute error of Phi is below 2e-7.
OAR_API void GeluForward(const float* x, int64_t n, float* y);

// dx = dy * (Phi(x) + x * phi(x)), phi being the standard normal density.
OAR_API void GeluBackward(const float* dy, const float* x, int64_t n, float* dx);

// ---- Softmax cross-entropy
// ----------------------------------------------------------------------- Index is int32_t or
// int64_t, here and below.

// probabilities[batch, classes] = softmax of each row of logits, loss[batch] = -log(probability of
// the row's label), in nats. Probabilities below 1e-38 are given as 0. A label outside [0, classes)
// throws std::out_of_range.
template <typename Index>
OAR_API void SoftmaxCrossEntropyForward(const float* logits, const Index* labels, int64_t batch,
                                        int64_t classes, float* loss, float* probabilities);

// dlogits[batch, classes] = dloss[batch] * (probabilities - one-hot of labels).
template <typename Index>
OAR_API void SoftmaxCrossEntropyBackward(const float* dloss, const float* probabilities,
                                         const Index* labels, int64_t batch, int64_t classes,
                                         float* dlogits);

// ---- Layer norm
// ----------------------------------------------------------------------------------

// y[batch, features] = (x - mean) * rstd * gamma[features] + beta[features], each row with its own
// mean[batch] and rstd[batch] = 1 / sqrt(variance + eps); the variance is the biased one. Throws
// std::invalid_argument when features is 0 or eps is not a finite number >= 0.
OAR_API void LayerNormForward(const float* x, const float* gamma, const float* beta, int64_t batch,
                              int64_t features, float eps, float* y, float* mean, float* rstd);

// dx[batch, features], dgamma[features] and dbeta[features] from dy[batch, features] and the mean
// and rstd of the forward call.
OAR_API void LayerNormBackward(const float* dy, const float* x, const float* gamma,
                               const float* mean, const float* rstd, int64_t batch,
                               int64_t features, float* dx, float* dgamma, float* dbeta);

// ---- Embedding bag
// -------------------------------------------------------------------------------

enum class BagMode { kSum, kMean };

// Bag b holds indices[offsets[b]] up to indices[offsets[b + 1]], the last bag up to count.
template <typename Index>
struct Bags {
  const Index* indices;  // [count], each a row of the table
  int64_t count;
  const Index* offsets;  // [bags], ascending from 0, none above count; no bags means count is 0
  int64_t bags;
};

// y[bags, dim] = sum or mean of each bag's rows of weight[rows, dim]; an empty bag gives zeros.
// Throws std::out_of_range for an index outside [0, rows), std::invalid_argument for bad offsets.
template <typename Index>
OAR_API void EmbeddingBagForward(const float* weight, const Bags<Index>& bags, int64_t rows,
                                 int64_t dim, BagMode mode, float* y);

// dweight[rows, dim] from dy[bags, dim]; rows that no bag holds get zeros. Throws as forward does.
template <typename Index>
OAR_API void EmbeddingBagBackward(const float* dy, const Bags<Index>& bags, int64_t rows,
                                  int64_t dim, BagMode mode, float* dweight);

// ---- 2-D convolution, NCHW
// -----------------------------------------------------------------------

// A window that slides over a plane of height x width, zero-padded on all four sides.
// All of it in pixels: kernel and stride at least 1, padding at least 0, each below 2^31.
struct Window2d {
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t pad_h, pad_w;
};

// Positions of a window along one axis: (size + 2 * pad - kernel) / stride + 1, rounded down.
// Throws std::invalid_argument when the kernel does not fit or an argument is out of its range.
OAR_API int64_t OutputSize(int64_t size, int64_t kernel, int64_t stride, int64_t pad);

struct Conv2dShape {
  int64_t batch, in_channels, height, width;
  int64_t out_channels;
  Window2d window;
};

// y[batch, out_channels, out_h, out_w] = cross-correlation of x[batch, in_channels, height, width]
// with weight[out_channels, in_channels, kernel_h, kernel_w], plus bias[out_channels]; a null bias
// counts as zeros. out_h and out_w are what OutputSize says.
OAR_API void Conv2dForward(const float* x, const float* weight, const float* bias,
                           const Conv2dShape& shape, float* y);

// dx, dweight and dbias, shaped like x, weight and bias, from dy, shaped like y.
OAR_API void Conv2dBackward(const float* dy, const float* x, const float* weight,
                            const Conv2dShape& shape, float* dx, float* dweight, float* dbias);

// ---- 2-D max pooling, NCHW
// -----------------------------------------------------------------------

struct Pool2dShape {
  int64_t planes, height, width;  // planes is batch * channels; height * width is below 2^31
  Window2d window;                // padding at most half the kernel, so no window is all padding
};

// y[planes, out_h, out_w] = largest value under the window, positions (same shape) = where it
// stands: row * width + column in the input plane, the first of equals. Padding never wins, a NaN
// always does. Throws std::invalid_argument when height or width is 0 and planes is not.
OAR_API void MaxPool2dForward(const float* x, const Pool2dShape& shape, float* y,
                              int32_t* positions);

// dx[planes, pixels]: each dy[planes, windows] is added at its position, pixels being height *
// width and windows out_h * out_w. Throws std::out_of_range for a position outside the plane.
OAR_API void MaxPool2dBackward(const float* dy, const int32_t* positions, int64_t planes,
                               int64_t windows, int64_t pixels, float* dx);

// ---- Adam
// ----------------------------------------------------------------------------------------

struct AdamOptions {
  float learning_rate = 1e-3f;
  float beta1 = 0.9f;  // decay of the first moment, in [0, 1)
  float beta2 = 0.999f;
  float eps = 1e-8f;  // added to the root of the second moment, >= 0
};

// One step of Adam (Kingma and Ba, 2015, algorithm 1), in place on param[n] and the moments
// first[n] and second[n], which start as zeros. `step` counts from 1. Throws std::invalid_argument
// for step < 1 or an option out of its range.
OAR_API void AdamStep(const float* grad, int64_t n, int64_t step, const AdamOptions& options,
                      float* param, float* first, float* second);

}  // namespace oar

#endif  // OAR_OAR_H_
