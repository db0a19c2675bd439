// Marks small functions that kernels on CPU and GPU share.

#ifndef OAR_SRC_HOST_DEVICE_H_
#define OAR_SRC_HOST_DEVICE_H_

#ifdef __CUDACC__
#define OAR_HOST_DEVICE __host__ __device__
#else
#define OAR_HOST_DEVICE
#endif

#endif  // OAR_SRC_HOST_DEVICE_H_
