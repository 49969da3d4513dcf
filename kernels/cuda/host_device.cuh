// Functions that a GPU runs, and a host program that tests them.
#pragma once

#ifdef __CUDACC__
#define EMSR_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define EMSR_HOST_DEVICE inline
#endif
