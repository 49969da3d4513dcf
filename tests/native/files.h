// Storages in files.
#pragma once
#include <cstdlib>
#include <fstream>

// The file's bytes, on a multiple of 16.
inline unsigned char* read_file(const char* path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const auto size = static_cast<size_t>(file.tellg());
  auto* bytes = static_cast<unsigned char*>(std::aligned_alloc(16, (size + 15) / 16 * 16));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes), static_cast<std::streamsize>(size));
  return bytes;
}
