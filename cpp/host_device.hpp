// One macro, so that the definitions compile for the host and, under nvcc, for the device too.
#pragma once

#ifdef __CUDACC__
#define ABCDEEP_HOST_DEVICE __host__ __device__
#else
#define ABCDEEP_HOST_DEVICE
#endif
