"""Constant tensors of a world, where its states are."""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


class Tables:
    """Constant tensors by name, copied once to each device that asks for them.

    A copy made while a step is traced has no numbers and is not kept, so a world asks in its first `reset`.
    """

    def __init__(self, **tables: Tensor):
        self.copies = {torch.device("cpu"): tables}

    def on(self, device: torch.device) -> dict[str, Tensor]:
        """The tensors on `device`, as a tensor there names it (with its index)."""
        if device in self.copies:
            return self.copies[device]
        copy = {name: table.to(device) for name, table in self.copies[torch.device("cpu")].items()}
        if not any(isinstance(table, FakeTensor) for table in copy.values()):  # the stand-ins of a tracing
            self.copies[device] = copy
        return copy
