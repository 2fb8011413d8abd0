"""Seeding: one seed, a stream of its own for every purpose, and the hash that shows two runs equal."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def stream(seed: int, *purpose: str | int) -> int:
    """A 31-bit seed for one purpose, a hash of (seed, purpose): streams do not touch, none depends on another."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator of its own for `purpose`."""
    return torch.Generator(device=device).manual_seed(stream(seed, purpose))


@contextmanager
def same_randomness() -> Iterator[None]:
    """The random streams of Python, NumPy and torch go on after the block as if nothing had been drawn in it."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def parameter_hash(state: dict[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes: equal hashes mean equal parameters, to the last bit."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update((tensor.flatten().view(torch.uint8).numpy() if tensor.numel() else np.empty(0, np.uint8)).data)
    return digest.hexdigest()
