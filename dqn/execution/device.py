"""Which device a run uses."""

from __future__ import annotations

import torch

from dqn.types import UsageError


def choose_device(name: str) -> tuple[torch.device, str]:
    """The device and the reason it was chosen. `auto` takes a usable GPU, else the CPU; a named device must work.

    Errors: UsageError when the named device is unknown or not usable here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"auto: {torch.cuda.get_device_name()} is usable"
        return torch.device("cpu"), "auto: no CUDA device is usable"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"device={name} cannot be used here ({reason}): choose device=auto or device=cpu.") from None
    return device, f"asked for by device={name}"
