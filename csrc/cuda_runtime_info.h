#pragma once
#include <string>

namespace emsr {

// Why this build's CUDA runtime cannot be used here (no driver, too old a driver, no device); empty if it can.
std::string cuda_unavailable();

}  // namespace emsr
