// The only file that knows Python. Every image arrives as the tuple that _native.view() makes.
#include <pybind11/pybind11.h>

#include <cstring>

#include "atrous.h"
#include "conv3x3.h"
#include "cpu/caches.h"
#include "cpu/isa.h"
#include "edge_gate.h"
#include "residual_block.h"
#include "upsample_to_image.h"
#include "window_attention.h"
#ifdef EMSR_WITH_CUDA
#include "cuda_runtime_info.h"
#endif

namespace py = pybind11;

namespace {

emsr::ImageView to_view(const py::tuple& t) {
  if (t.size() != 10) throw py::value_error("a view has 10 fields: data, 4 sizes, 4 strides, dtype");
  int64_t v[10];
  for (size_t i = 0; i < 10; ++i) v[i] = t[i].cast<int64_t>();
  return {reinterpret_cast<void*>(v[0]), v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], static_cast<emsr::DType>(v[9])};
}

// An empty tuple stands for an image that is not there.
emsr::ImageView to_view_or_none(const py::tuple& t) { return t.empty() ? emsr::ImageView{} : to_view(t); }

template <typename T>
T* to_pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// The 11 parameter pointers, in the order of the struct, then the sizes.
emsr::WindowAttentionWeights to_weights(const py::tuple& pointers, int64_t heads, int64_t hidden) {
  if (pointers.size() != 11) throw py::value_error("window attention has 11 parameters");
  const void* p[11];
  for (size_t i = 0; i < 11; ++i) p[i] = reinterpret_cast<const void*>(pointers[i].cast<uintptr_t>());
  return {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], heads, hidden};
}

// (token rows, token columns, four pointers to int32 maps)
emsr::WindowGrid to_grid(const py::tuple& t) {
  if (t.size() != 6) throw py::value_error("a window grid has 6 fields: 2 sizes, 4 maps");
  const auto map = [&](size_t i) { return reinterpret_cast<const int32_t*>(t[i].cast<uintptr_t>()); };
  return {t[0].cast<int64_t>(), t[1].cast<int64_t>(), map(2), map(3), map(4), map(5)};
}

}  // namespace

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.attr("max_atrous_levels") = emsr::kMaxAtrousLevels;
  m.attr("window") = emsr::kWindow;
  m.def("cpu_isa", &emsr::cpu_isa_name);
  m.def("cpu_caches", [] { return py::make_tuple(emsr::caches().l2, emsr::caches().line); });

  m.def("atrous_details_cpu", [](const py::tuple& x, const py::tuple& out, int levels, int threads) {
    const emsr::ImageView vx = to_view(x), vout = to_view(out);
    py::gil_scoped_release no_gil;
    emsr::atrous_details_cpu(vx, vout, levels, threads);
  });
  m.def("atrous_details_backward_cpu", [](const py::tuple& grad, const py::tuple& out, int levels, int threads) {
    const emsr::ImageView vgrad = to_view(grad), vout = to_view(out);
    py::gil_scoped_release no_gil;
    emsr::atrous_details_backward_cpu(vgrad, vout, levels, threads);
  });
  m.def("window_attention_cpu", [](const py::tuple& x, const py::tuple& out, const py::tuple& weights, int64_t heads,
                                   int64_t hidden, const py::tuple& grid, int threads) {
    const emsr::ImageView vx = to_view(x), vout = to_view(out);
    const emsr::WindowAttentionWeights w = to_weights(weights, heads, hidden);
    const emsr::WindowGrid g = to_grid(grid);
    py::gil_scoped_release no_gil;
    emsr::window_attention_cpu(vx, vout, w, g, threads);
  });
  m.def("linear_cpu", [](uintptr_t x, int64_t tokens, int64_t inputs, uintptr_t weight, uintptr_t bias, int64_t outputs, bool relu,
                         uintptr_t out, int threads) {
    py::gil_scoped_release no_gil;
    emsr::linear_cpu(to_pointer<const float>(x), tokens, inputs, to_pointer<const float>(weight), to_pointer<const float>(bias),
                     outputs, relu, to_pointer<float>(out), threads);
  });
  m.def("linear_weight_gradient_cpu", [](uintptr_t x, uintptr_t grad, int64_t tokens, int64_t inputs, int64_t outputs, uintptr_t out,
                                         int threads) {
    py::gil_scoped_release no_gil;
    emsr::linear_weight_gradient_cpu(to_pointer<const float>(x), to_pointer<const float>(grad), tokens, inputs, outputs,
                                     to_pointer<float>(out), threads);
  });
  m.def("attend_windows_cpu", [](const py::tuple& qkv, const py::tuple& out, int64_t heads, int threads) {
    const emsr::ImageView vqkv = to_view(qkv), vout = to_view(out);
    py::gil_scoped_release no_gil;
    emsr::attend_windows_cpu(vqkv, vout, heads, threads);
  });
  m.def("attend_windows_backward_cpu", [](const py::tuple& qkv, const py::tuple& grad, const py::tuple& out, int64_t heads,
                                          int threads) {
    const emsr::ImageView vqkv = to_view(qkv), vgrad = to_view(grad), vout = to_view(out);
    py::gil_scoped_release no_gil;
    emsr::attend_windows_backward_cpu(vqkv, vgrad, vout, heads, threads);
  });

  m.def("same_bytes", [](uintptr_t a, uintptr_t b, size_t bytes) {
    return std::memcmp(to_pointer<const void>(a), to_pointer<const void>(b), bytes) == 0;
  });
  m.def("conv3x3_packed_size", &emsr::conv3x3_packed_size);
  m.def("conv3x3_pack_cpu", [](const py::tuple& weight, uintptr_t packed, int threads) {
    const emsr::ImageView vweight = to_view(weight);
    py::gil_scoped_release no_gil;
    emsr::conv3x3_pack_cpu(vweight, to_pointer<float>(packed), threads);
  });
  m.def("conv3x3_weight_gradient_cpu", [](const py::tuple& x, const py::tuple& grad, const py::tuple& out, int threads) {
    const emsr::ImageView vx = to_view(x), vgrad = to_view(grad), vout = to_view(out);
    py::gil_scoped_release no_gil;
    emsr::conv3x3_weight_gradient_cpu(vx, vgrad, vout, threads);
  });
  m.def("conv3x3_cpu", [](const py::tuple& x, const py::tuple& out, const py::tuple& other, uintptr_t packed, int activation,
                          int combine, int threads) {
    const emsr::ImageView vx = to_view(x), vout = to_view(out), vother = to_view_or_none(other);
    py::gil_scoped_release no_gil;
    emsr::conv3x3_cpu(vx, vout, vother, to_pointer<const float>(packed), static_cast<emsr::Activation>(activation),
                      static_cast<emsr::Combine>(combine), threads);
  });
  m.def("edge_gate_cpu", [](const py::tuple& x, const py::tuple& out, uintptr_t packed_k1, uintptr_t k2, uintptr_t bias,
                            uintptr_t packed_k3, int threads) {
    const emsr::ImageView vx = to_view(x), vout = to_view(out);
    py::gil_scoped_release no_gil;
    emsr::edge_gate_cpu(vx, vout, to_pointer<const float>(packed_k1), to_pointer<const float>(k2), to_pointer<const float>(bias),
                        to_pointer<const float>(packed_k3), threads);
  });
  m.def("upsample_to_image_cpu", [](const py::tuple& x, const py::tuple& out, uintptr_t weight, int64_t scale, int threads) {
    const emsr::ImageView vx = to_view(x), vout = to_view(out);
    py::gil_scoped_release no_gil;
    emsr::upsample_to_image_cpu(vx, vout, to_pointer<const float>(weight), scale, threads);
  });

#ifdef EMSR_WITH_CUDA
  m.attr("built_with_cuda") = true;
  m.def("cuda_unavailable", &emsr::cuda_unavailable);
  m.def("atrous_details_cuda", [](const py::tuple& x, const py::tuple& out, int levels, int device, uintptr_t stream) {
    const emsr::ImageView vx = to_view(x), vout = to_view(out);
    py::gil_scoped_release no_gil;
    emsr::atrous_details_cuda(vx, vout, levels, device, stream);
  });
  m.def("atrous_details_backward_cuda", [](const py::tuple& grad, const py::tuple& out, int levels, int device, uintptr_t stream) {
    const emsr::ImageView vgrad = to_view(grad), vout = to_view(out);
    py::gil_scoped_release no_gil;
    emsr::atrous_details_backward_cuda(vgrad, vout, levels, device, stream);
  });
  m.def("window_attention_cuda", [](const py::tuple& x, const py::tuple& out, const py::tuple& weights, int64_t heads,
                                    int64_t hidden, int device, uintptr_t stream) {
    const emsr::ImageView vx = to_view(x), vout = to_view(out);
    const emsr::WindowAttentionWeights w = to_weights(weights, heads, hidden);
    py::gil_scoped_release no_gil;
    emsr::window_attention_cuda(vx, vout, w, device, stream);
  });
  m.def("conv3x3_cuda", [](const py::tuple& x, const py::tuple& out, const py::tuple& other, uintptr_t weight, int activation,
                           int combine, int device, uintptr_t stream) {
    const emsr::ImageView vx = to_view(x), vout = to_view(out), vother = to_view_or_none(other);
    py::gil_scoped_release no_gil;
    emsr::conv3x3_cuda(vx, vout, vother, to_pointer<const void>(weight), static_cast<emsr::Activation>(activation),
                       static_cast<emsr::Combine>(combine), device, stream);
  });
  m.def("residual_block_cuda", [](const py::tuple& x, const py::tuple& out, uintptr_t first, uintptr_t second, int device,
                                  uintptr_t stream) {
    const emsr::ImageView vx = to_view(x), vout = to_view(out);
    py::gil_scoped_release no_gil;
    emsr::residual_block_cuda(vx, vout, to_pointer<const void>(first), to_pointer<const void>(second), device, stream);
  });
#else
  m.attr("built_with_cuda") = false;
#endif
}
