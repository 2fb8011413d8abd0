"""An optimizer's tensors, made before its first step, so that every update finds the same ones."""

from typing import Any

import torch
from torch import Tensor


class _First(dict):
    """What an optimizer keeps of one parameter; `first` is what each tensor was when it was made."""

    def __init__(self, kept: dict[str, Any]):
        super().__init__()
        self.first: dict[str, Tensor] = {}
        for name, value in kept.items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if isinstance(value, Tensor):
            self.first.setdefault(name, value.clone())


@torch.no_grad()
def begin(optimizer: torch.optim.Optimizer) -> None:
    """Make the tensors that the optimizer keeps of each parameter, as its first step would, and change nothing else.

    A step is taken with gradients of zero, and all that it changed is put back. An engine that records or captures a
    step needs every tensor to be there before, and so do a checkpoint and a resume.
    """
    groups, state = optimizer.param_groups, optimizer.state
    parameters = [p for group in groups for p in group["params"]]
    before, own = [p.clone() for p in parameters], [dict(group) for group in groups]
    for group in groups:
        if "weight_decay" in group:  # it would reach the tensors
            group["weight_decay"] = 0.0
    for p in parameters:
        state[p] = _First(state[p])
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for p, mine in zip(parameters, before, strict=True):
        p.grad = None
        p.copy_(mine)
        for name, tensor in state[p].first.items():
            state[p][name].copy_(tensor)
        state[p] = dict(state[p])
    for group, options in zip(groups, own, strict=True):
        group.update(options)
