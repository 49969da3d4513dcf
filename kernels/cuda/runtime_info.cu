#include <cuda_runtime.h>

#include "cuda_runtime_info.h"

namespace emsr {

std::string cuda_unavailable() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaSuccess) return devices > 0 ? "" : "no CUDA device";
  // clear the error: the next call of this runtime must not report it again
  cudaGetLastError();
  return cudaGetErrorString(status);
}

}  // namespace emsr
