"""Makes the network usable in a process that was forked after its parent had used it."""

from __future__ import annotations

import functools
import os

import torch


@functools.cache
def one_thread_after_fork() -> None:
    """Let PyTorch use one thread in every process that is forked from this one from now on.

    Its OpenMP threads do not survive a fork, and the child would wait for them for ever. PyTorch's DataLoader does the
    same in its workers. The pool of our own kernels survives, and has as many threads as PyTorch says.
    """
    os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))
