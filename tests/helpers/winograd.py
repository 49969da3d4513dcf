"""Winograd's F(6x6, 3x3) in plain PyTorch, to compare the kernels' rounding with."""

import numpy as np
import torch
import torch.nn.functional as F

POINTS = (0, 1, -1, 0.5, -0.5, 2, -2)  # and infinity: those of the transforms


def transforms():
    """Return the matrices of F(6, 3) in float64: of the input (8, 8), of the weight (8, 3), of the output (6, 8)."""
    points = np.array(POINTS)
    others = [np.delete(points, i) for i in range(7)]
    of_input = np.array([[*np.poly(roots)[::-1], 0] for roots in others] + [np.poly(points)[::-1]])
    of_weight = np.array(
        [points[i] ** np.arange(3) / np.prod(points[i] - roots) for i, roots in enumerate(others)] + [[0, 0, 1]]
    )
    of_output = np.array([points**power for power in range(6)])
    of_output = np.column_stack([of_output, np.eye(6)[5]])
    return (torch.from_numpy(m.astype(np.float64)) for m in (of_input, of_weight, of_output))


def transformed(x, weight):
    """Return the convolution by way of these matrices, in the precision of ``x``."""
    of_input, of_weight, of_output = transforms()
    (height, width), dtype = x.shape[2:], x.dtype
    # the weight is transformed in float64 and rounded once; the tiles come with the pixels around them
    weight = torch.einsum("pi,ocij,qj->pqco", of_weight, weight.double(), of_weight).to(dtype)
    tiles = F.pad(x, (1, 1 + -width % 6, 1, 1 + -height % 6)).unfold(2, 8, 6).unfold(3, 8, 6)
    rows = torch.einsum("pi,bcyxij->pbyxcj", of_input.to(dtype), tiles)
    sums = torch.einsum("qj,pbyxcj->pqbyxc", of_input.to(dtype), rows).flatten(2, 4) @ weight
    rows = torch.einsum("ip,pqto->iqto", of_output.to(dtype), sums)
    out = torch.einsum("jq,iqto->ijto", of_output.to(dtype), rows).unflatten(2, (x.shape[0], *tiles.shape[2:4]))
    return out.permute(2, 5, 3, 0, 4, 1).flatten(2, 3).flatten(3)[:, :, :height, :width]


def transformed_weight_gradient(x, grad):
    """Return the gradient of the weight by way of these matrices, in the precision of ``x``; ``grad`` of the result."""
    of_input, of_weight, of_output = (m.to(x.dtype) for m in transforms())
    height, width = x.shape[2:]
    tiles = F.pad(x, (1, 1 + -width % 6, 1, 1 + -height % 6)).unfold(2, 8, 6).unfold(3, 8, 6)
    rows = torch.einsum("pi,bcyxij->pbyxcj", of_input, tiles)
    values = torch.einsum("qj,pbyxcj->pqbyxc", of_input, rows).flatten(2, 4)
    tiles = F.pad(grad, (0, -width % 6, 0, -height % 6)).unfold(2, 6, 6).unfold(3, 6, 6)
    rows = torch.einsum("ip,bcyxij->pbyxcj", of_output, tiles)
    grads = torch.einsum("jq,pbyxcj->pqbyxc", of_output, rows).flatten(2, 4)
    sums = grads.transpose(2, 3) @ values
    return torch.einsum("pi,pqoc,qj->ocij", of_weight, sums, of_weight)
