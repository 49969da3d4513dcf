"""The only module that calls emsr_fast._C: tensors become views here."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

try:
    from emsr_fast import _C
except ImportError as error:
    why_missing: str | None = f"the compiled module is not installed ({error})"
    MAX_ATROUS_LEVELS = 0
    WINDOW = 0
else:
    why_missing = None
    MAX_ATROUS_LEVELS = _C.max_atrous_levels
    WINDOW = _C.window

_DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}


@functools.cache
def why_no_cpu() -> str | None:
    """Return why the compiled CPU kernels cannot run here, or None if they can."""
    if why_missing:
        return why_missing
    try:
        _C.cpu_isa()
    except RuntimeError as error:
        return str(error)
    return None


@functools.cache
def why_no_cuda() -> str | None:
    """Return why the compiled CUDA kernels cannot run on this machine, or None if they can."""
    if why_missing:
        return why_missing
    if not _C.built_with_cuda:
        return "emsr_fast._C was built without CUDA (no nvcc was found, or EMSR_CUDA=OFF)"
    reason = _C.cuda_unavailable()
    return f"the CUDA runtime says: {reason}" if reason else None


def cpu_isa() -> str:
    """Return the instruction set that the CPU kernels use: "baseline", "avx2" or "avx512"."""
    return _C.cpu_isa()


def cpu_caches() -> tuple[int, int]:
    """Return what the CPU kernels take for the size of a core's L2 cache and of a cache line, bytes."""
    return _C.cpu_caches()


def view(t: Tensor) -> tuple[int, ...]:
    """Describe ``t`` (B, C, H, W) to C++: data pointer, sizes, strides (elements), dtype code."""
    return (t.data_ptr(), *t.shape, *t.stride(), _DTYPES[t.dtype])


def address(t: Tensor) -> int:
    """Return the address of the first element of ``t``, for a runtime that keeps the address but no reference."""
    return t.data_ptr()


def _place(t: Tensor) -> tuple[int, int]:
    """Return where a CUDA call on ``t`` runs: device index and current stream."""
    return t.device.index, torch.cuda.current_stream(t.device).cuda_stream


def atrous_details(x: Tensor, out: Tensor, levels: int) -> None:
    """Write the details of ``x`` (B, C, H, W) into ``out`` (B, levels * C, H, W)."""
    if x.is_cuda:
        _C.atrous_details_cuda(view(x), view(out), levels, *_place(x))
    else:
        _C.atrous_details_cpu(view(x), view(out), levels, torch.get_num_threads())


def atrous_details_backward(grad: Tensor, out: Tensor, levels: int) -> None:
    """Write the gradient of the image into ``out`` (B, C, H, W) from ``grad`` (B, levels * C, H, W)."""
    if grad.is_cuda:
        _C.atrous_details_backward_cuda(view(grad), view(out), levels, *_place(grad))
    else:
        _C.atrous_details_backward_cpu(view(grad), view(out), levels, torch.get_num_threads())


def window_attention(x: Tensor, out: Tensor, parameters: Sequence[Tensor], heads: int, maps: Sequence[Tensor]) -> None:
    """Write the transformer block of ``x`` (B, C, H, W) into ``out``; both hold the channels of a pixel side by side.

    Args:
        parameters: the block's 11 tensors in the operator's order, contiguous, dtype of ``x``.
        maps: int32; row and column of each token (-1: none), token of each row and column.
    """
    hidden = parameters[7].shape[0]
    pointers = tuple(p.data_ptr() for p in parameters)
    grid = (maps[0].numel(), maps[1].numel(), *(m.data_ptr() for m in maps))
    _C.window_attention_cpu(view(x), view(out), pointers, heads, hidden, grid, torch.get_num_threads())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """Return ``x`` (tokens, inputs) times ``weight`` (outputs, inputs) transposed, plus bias; float32, any strides."""
    x, weight, bias = x.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
    (tokens, inputs), outputs = x.shape, weight.shape[0]
    out = x.new_empty((tokens, outputs))
    start = 0 if bias is None else bias.data_ptr()
    threads = torch.get_num_threads()
    _C.linear_cpu(x.data_ptr(), tokens, inputs, weight.data_ptr(), start, outputs, relu, out.data_ptr(), threads)
    return out


def linear_weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of a weight (outputs, inputs) from ``x`` (tokens, inputs) and ``grad`` (tokens, outputs)."""
    x, grad = x.contiguous(), grad.contiguous()
    (tokens, inputs), outputs = x.shape, grad.shape[1]
    out = x.new_empty((outputs, inputs))
    threads = torch.get_num_threads()
    _C.linear_weight_gradient_cpu(x.data_ptr(), grad.data_ptr(), tokens, inputs, outputs, out.data_ptr(), threads)
    return out


def attend_windows(qkv: Tensor, out: Tensor, heads: int) -> None:
    """Write the attention in windows of ``qkv`` (B, 3C, H, W) into ``out`` (B, C, H, W), channels side by side."""
    _C.attend_windows_cpu(view(qkv), view(out), heads, torch.get_num_threads())


def attend_windows_backward(qkv: Tensor, grad: Tensor, out: Tensor, heads: int) -> None:
    """Write the gradient of ``qkv`` into ``out``, like it, from ``grad`` (B, C, H, W) of its attention."""
    _C.attend_windows_backward_cpu(view(qkv), view(grad), view(out), heads, torch.get_num_threads())


def window_attention_cuda(x: Tensor, out: Tensor, parameters: Sequence[Tensor], heads: int) -> None:
    """Write the transformer block of ``x`` into ``out`` on their GPU, in whole windows; see ``window_attention``.

    Pixels of both, and the parameters, must start on multiples of 16 bytes: ``aligned``.
    """
    pointers = tuple(p.data_ptr() for p in parameters)
    _C.window_attention_cuda(view(x), view(out), pointers, heads, parameters[7].shape[0], *_place(x))


def aligned(t: Tensor, size: int) -> bool:
    """Return whether ``t`` starts on a multiple of ``size`` bytes, and if (B, C, H, W), each of its pixels."""
    steps = (t.stride(0), t.stride(2), t.stride(3)) if t.dim() == 4 else ()
    return all(start % size == 0 for start in (t.data_ptr(), *(s * t.element_size() for s in steps)))


def fingerprint(tensors: Iterable[Tensor]) -> tuple[object, ...]:
    """Return address, sizes, strides and dtype of each tensor: code that keeps addresses depends on them."""
    return tuple((t.data_ptr(), t.dtype, t.shape, t.stride()) for t in tensors)


def same_bytes(a: Tensor, b: Tensor) -> bool:
    """Return whether two dense tensors of one shape, strides and dtype hold the same bytes."""
    return (
        a.shape == b.shape
        and a.stride() == b.stride()
        and a.dtype == b.dtype
        and _C.same_bytes(a.data_ptr(), b.data_ptr(), a.nbytes)
    )


def conv3x3_packed_size(outputs: int, inputs: int) -> int:
    """Return the number of floats that ``conv3x3_pack`` writes for a weight (outputs, inputs, 3, 3)."""
    return _C.conv3x3_packed_size(outputs, inputs)


def conv3x3_pack(weight: Tensor, packed: Tensor, *, turned: bool = False) -> None:
    """Write ``weight`` (C_out, C_in, 3, 3), float32, into ``packed`` as the kernels read it.

    ``turned``: the weight with outputs and inputs exchanged and its taps turned by 180 degrees.
    """
    seen = view(weight)
    if turned:
        address, outputs, inputs, rows, cols, over_outputs, over_inputs, over_rows, over_cols, dtype = seen
        last = address + weight.element_size() * (2 * over_rows + 2 * over_cols)
        seen = (last, inputs, outputs, rows, cols, over_inputs, over_outputs, -over_rows, -over_cols, dtype)
    _C.conv3x3_pack_cpu(seen, packed.data_ptr(), torch.get_num_threads())


def conv3x3_weight_gradient(x: Tensor, grad: Tensor, out: Tensor) -> None:
    """Write the gradient of a weight into ``out`` from ``x`` and the convolution's gradient, channels side by side."""
    _C.conv3x3_weight_gradient_cpu(view(x), view(grad), view(out), torch.get_num_threads())


def conv3x3(
    x: Tensor, out: Tensor, other: Tensor | None, packed: Tensor, activation: int, gated: bool, masked: bool = False
) -> None:
    """Write the convolution of ``x`` into ``out``, with the packed weight, activation and second image.

    ``masked``: the result is 0 where the second image is not above 0.
    """
    combine = 0 if other is None else 3 if masked else 2 if gated else 1
    second = () if other is None else view(other)
    threads = torch.get_num_threads()
    _C.conv3x3_cpu(view(x), view(out), second, packed.data_ptr(), activation, combine, threads)


def conv3x3_cuda(x: Tensor, out: Tensor, other: Tensor | None, weight: Tensor, activation: int, gated: bool) -> None:
    """Write the convolution of ``x`` into ``out`` on their GPU; 64 to 64 channels, side by side, float16 or bfloat16.

    Pixels of all images must start on multiples of 16 bytes, ``weight``, dense channels last, on one of 4: ``aligned``.
    """
    combine = 0 if other is None else 2 if gated else 1
    second = () if other is None else view(other)
    _C.conv3x3_cuda(view(x), view(out), second, weight.data_ptr(), activation, combine, *_place(x))


def residual_block_cuda(x: Tensor, out: Tensor, first: Tensor, second: Tensor) -> None:
    """Write the residual block of ``x`` into ``out`` on their GPU; layout and alignment as in ``conv3x3_cuda``."""
    _C.residual_block_cuda(view(x), view(out), first.data_ptr(), second.data_ptr(), *_place(x))


def edge_gate(x: Tensor, out: Tensor, packed_k1: Tensor, k2: Tensor, bias: Tensor, packed_k3: Tensor) -> None:
    """Write the edge gate of ``x`` (B, C, H, W) into ``out``; k1 and k3 packed for ``conv3x3``, the rest contiguous."""
    pointers = (packed_k1.data_ptr(), k2.data_ptr(), bias.data_ptr(), packed_k3.data_ptr())
    _C.edge_gate_cpu(view(x), view(out), *pointers, torch.get_num_threads())


def upsample_to_image(x: Tensor, out: Tensor, weight: Tensor, scale: int) -> None:
    """Write the HR image of ``x`` (B, C, H, W), channels side by side, into ``out``, with the folded ``weight``."""
    _C.upsample_to_image_cpu(view(x), view(out), weight.data_ptr(), scale, torch.get_num_threads())
