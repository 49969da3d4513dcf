// What every launcher needs: a device guard, and errors that name the kernel.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace emsr {

inline void check_cuda(cudaError_t status, const std::string& what) {
  if (status != cudaSuccess) throw std::runtime_error(what + ": " + cudaGetErrorString(status));
}

// Makes a device current and puts the caller's back, because torch in the same thread relies on its own choice.
class DeviceGuard {
 public:
  DeviceGuard(int device, const std::string& what) {
    check_cuda(cudaGetDevice(&before_), what + ": cudaGetDevice");
    if (device == before_) return;
    check_cuda(cudaSetDevice(device), what + ": cudaSetDevice(" + std::to_string(device) + ")");
    changed_ = true;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace emsr
