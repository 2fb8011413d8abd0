"""Policies as ONNX files: written, run in a network's place, and made smaller by int8. The extra `export`."""

import importlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqn.errors import UsageError
from dqn.exports.policy import Policy
from dqn.types import ILLEGAL, Values

log = logging.getLogger("dqn")
QUANTIZED = ["Conv", "Gemm", "MatMul"]  # what has weights; among the rest is where illegal actions get −1e30


def library(name: str) -> Any:
    """A library of the extra `export`, without reports to its makers. Errors: UsageError where it is missing."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime writes a device id into the user's cache
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UsageError(f"An export needs {name.partition('.')[0]}: run pip install 'dqn-family[export]'.") from None


def write(policy: Policy, onnx_file: Path, program_file: Path | None = None) -> None:
    """The policy as ONNX, and as a torch.export program, both for batches of any size."""
    library("onnxscript")
    example, batch = policy.example(2), torch.export.Dim("batch")
    with _quiet(), _one_sentence(), torch.no_grad():
        program = torch.export.export(policy, example, dynamic_shapes=(tuple({0: batch} for _ in example),))
        if program_file is not None:
            torch.export.save(program, program_file)
        torch.onnx.export(
            program, (), onnx_file, input_names=policy.input_names, output_names=policy.output_names, dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip


@contextmanager
def _one_sentence() -> Iterator[None]:
    """What the exporters raise where a part does what they cannot write down, by its cause. Errors: UsageError."""
    try:
        yield
    except (OSError, MemoryError, UsageError):
        raise
    except Exception as error:
        log.debug("What was raised", exc_info=True)
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said = " ".join(str(cause).split())[:200]
        raise UsageError(
            f"This network cannot be exported ({type(cause).__name__}: {said}): one of its parts does what "
            "torch.export or ONNX cannot express."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the libraries say of their own workings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class Session:
    """An ONNX file in the place of the network that it was made from: an actor plays with it."""

    def __init__(self, path: Path, policy: Policy):
        runtime = library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.path, self.policy, self.state_size = path, policy, policy.state_size
        self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs for the policy's arguments."""
        return self.session.run(None, dict(zip(self.policy.input_names, arguments, strict=True)))

    def initial(self, num_envs: int, device: torch.device | None = None) -> Tensor:
        """The memory of nothing: zeros [E, S]."""
        return self.policy.network.initial(num_envs)

    def step(self, obs: Tensor, state: Tensor) -> tuple[Values, Tensor]:
        """As networks.qnetwork.QNetwork: obs [E, ...] and what is remembered [E, S] → Values, what is remembered."""
        _, q, *remembered = self.run(self.policy.arguments(obs.numpy(), state))
        values = torch.from_numpy(q)
        return Values(values, mask=values > ILLEGAL), torch.from_numpy(remembered[0]) if remembered else state

    def eval(self) -> None:
        """Nothing: it knows no training."""

    def train(self) -> None:
        """Nothing, too."""


def quantize(how: str, source: Path, target: Path, policy: Policy, calls: Sequence[Sequence[np.ndarray]]) -> None:
    """`source` with the weights of its layers as int8. `dynamic` measures the range of activations in every call, and
    `static` has measured them in `calls`, arguments of the policy."""
    onnx, quantization = library("onnx"), library("onnxruntime.quantization")
    model = onnx.load(source)
    del model.graph.value_info[:]  # or onnxruntime contradicts the exporter's shapes
    with _quiet():
        if how == "dynamic":
            quantization.quantize_dynamic(
                model, target, weight_type=quantization.QuantType.QInt8, op_types_to_quantize=QUANTIZED
            )
        else:
            quantization.quantize_static(model, target, _Calls(policy, calls), op_types_to_quantize=QUANTIZED)


class _Calls:
    """Hands calls to onnxruntime, one after the other (its CalibrationDataReader)."""

    def __init__(self, policy: Policy, calls: Sequence[Sequence[np.ndarray]]):
        self.names, self.calls = policy.input_names, iter(calls)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next call; None after the last."""
        call = next(self.calls, None)
        return None if call is None else dict(zip(self.names, call, strict=True))
