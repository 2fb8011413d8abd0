"""Seeding: one seed, a stream of its own for every purpose, and the hash that shows two runs equal."""

import hashlib

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


def parameter_hash(state: dict[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes: equal hashes mean equal parameters, to the last bit."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update((tensor.flatten().view(torch.uint8).numpy() if tensor.numel() else np.empty(0, np.uint8)).data)
    return digest.hexdigest()
