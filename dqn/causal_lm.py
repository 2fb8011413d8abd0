"""A causal language model from a folder of this machine: loaded once, frozen, and decoded a token at a time.

This is the one file that imports transformers, inside the functions that need it. Nothing is fetched from a hub, no
code of the model's folder is executed, and weights are read from safetensors or GGUF files alone.
"""

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dqn.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PROBE = 64  # tokens that are shown to a model once, to see what its hidden vectors are like
NEEDS = 'pip install "dqn-family[lm]"'


@dataclass(frozen=True)
class CausalLM:
    """A frozen causal language model with its tokenizer.

    `ends` are the tokens that end a text. `norms` are the mean lengths of an output embedding and of a hidden vector.
    """

    path: str
    model: Any
    tokenizer: Any
    ends: tuple[int, ...]
    norms: tuple[float, float]

    @property
    def output(self) -> Any:
        """The output layer: a linear map W [V, d] from hidden vectors to logits."""
        return self.model.get_output_embeddings()

    @property
    def embeddings(self) -> Tensor:
        """The output embeddings [V, d], a row for each token."""
        return self.output.weight

    @property
    def device(self) -> torch.device:
        return self.embeddings.device

    @property
    def context(self) -> int:
        """How many tokens the model can read."""
        return int(getattr(self.model.config, "max_position_embeddings", None) or 10**9)

    def encode(self, prompt: str | Sequence[dict[str, str]], reply: bool = True) -> list[int]:
        """The tokens of a prompt: text as it is, or the messages of a conversation by the model's chat template, which
        ends, with `reply`, where the assistant is to speak."""
        if isinstance(prompt, str):
            return self.tokenizer(prompt)["input_ids"]
        if not self.tokenizer.chat_template:
            raise UsageError(f"env.model={self.path} has no chat template: give prompts as text, not as messages.")
        return self.tokenizer.apply_chat_template([*prompt], add_generation_prompt=reply, return_dict=True)["input_ids"]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens, without special ones."""
        return self.tokenizer.decode([*map(int, tokens)], skip_special_tokens=True)


class Decoding:
    """A batch of texts that grow together by a token each, with the library's own cache.

    Prompts of different lengths stand at the right; what stands before them is masked by position, whatever its token.
    `hidden` [E, d] and `logits` [E, V], both float32, are of the newest position.
    """

    hidden: Tensor
    logits: Tensor

    def __init__(self, lm: CausalLM, prompts: Sequence[Sequence[int]]):
        self.lm, self.cache, self.body = lm, None, lm.model.base_model
        names = inspect.signature(self.body.forward).parameters
        self.cache_name = "cache" if "cache" in names else "past_key_values"  # renamed in transformers 5.24
        self.positioned = "position_ids" in names
        longest = max(map(len, prompts))
        tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
        self.mask = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
            self.mask[row, longest - len(prompt) :] = 1
        self.mask = self.mask.to(lm.device)
        self._read(tokens.to(lm.device))

    def append(self, tokens: Tensor) -> None:
        """Put one token [E] int64 after each text."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        self._read(tokens.to(self.lm.device).unsqueeze(1))

    @torch.no_grad()
    def _read(self, tokens: Tensor) -> None:
        more: dict[str, Any] = {self.cache_name: self.cache}
        if self.positioned:
            position = (self.mask.cumsum(1) - 1).clamp_min(0)
            more["position_ids"] = position[:, -tokens.shape[1] :]
        seen = self.body(input_ids=tokens, attention_mask=self.mask, use_cache=True, **more)
        self.cache = seen[self.cache_name]
        hidden = seen.last_hidden_state[:, -1]
        self.hidden, self.logits = hidden.float(), self.lm.output(hidden).float()


_LOADED: dict[tuple[str, str], CausalLM] = {}


def load(path: str, dtype: str = "float32", device: torch.device | str | None = None) -> CausalLM:
    """The model in folder `path`; a second call gives the same model. `device`: None leaves it where it is.

    Errors: UsageError where transformers is missing, the folder holds no model that can be used, or its logits are not
    a linear map of its hidden vectors.
    """
    key = (str(Path(path).resolve()), dtype)
    if key not in _LOADED:
        _LOADED[key] = _loaded(key[0], dtype)
    lm = _LOADED[key]
    if device is not None and lm.device != torch.device(device):
        lm.model.to(device)
    return lm


def _loaded(path: str, dtype: str) -> CausalLM:
    gguf = _weights(path)
    if dtype not in DTYPES:
        raise UsageError(f"env.dtype must be {' or '.join(DTYPES)}, got {dtype!r}.")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer  # pyright: ignore[reportMissingImports]
        from transformers.utils.logging import disable_progress_bar  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(f"A language model needs transformers ({error}): run {NEEDS}.") from error
    disable_progress_bar()  # a model is loaded in a second, and the run has a bar of its own
    more: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if gguf:
        more["gguf_file"] = gguf
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **more)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=DTYPES[dtype], **more, **(_dequantised() if gguf else {"use_safetensors": True})
        )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"env.model={path} cannot be loaded as a causal language model ({said}).") from error
    model = model.eval().requires_grad_(False)
    return CausalLM(path, model, tokenizer, _ends(model, tokenizer), _norms(path, model))


def _weights(path: str) -> str | None:
    """The name of the folder's GGUF file, None for safetensors. Errors: UsageError where there is neither."""
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(f"env.model={path} is no folder: name the folder of a model on this machine.")
    if [*folder.glob("*.safetensors")]:
        return None
    found = sorted(file.name for file in folder.glob("*.gguf"))
    if len(found) != 1:
        raise UsageError(
            f"env.model={path} must hold safetensors or one GGUF file (it holds {len(found)} GGUF files): weights in "
            "other formats may execute code, so convert them with save_pretrained."
        )
    return found[0]


def _dequantised() -> dict[str, Any]:
    from transformers import GgufConfig  # pyright: ignore[reportMissingImports]

    return {"quantization_config": GgufConfig(dequantize=True)}


def _ends(model: Any, tokenizer: Any) -> tuple[int, ...]:
    given = model.generation_config.eos_token_id if model.generation_config is not None else None
    given = tokenizer.eos_token_id if given is None else given
    return tuple(given) if isinstance(given, (list, tuple)) else () if given is None else (int(given),)


@torch.no_grad()
def _norms(path: str, model: Any) -> tuple[float, float]:
    """The mean lengths of an output embedding and of a hidden vector, of a few tokens spread over the vocabulary.

    Errors: UsageError where logits are not the output layer's map of the last hidden vector.
    """
    output = model.get_output_embeddings()
    weight = getattr(output, "weight", None)
    if weight is None or weight.ndim != 2:
        raise UsageError(f"env.model={path} has no output matrix: choose a model whose logits are a linear map.")
    tokens = torch.linspace(0, len(weight) - 1, PROBE, device=weight.device).long()[None]
    hidden = model.base_model(input_ids=tokens).last_hidden_state
    logits, linear = model(input_ids=tokens).logits.float(), output(hidden).float()
    if logits.shape != linear.shape or not torch.allclose(logits, linear, rtol=1e-3, atol=1e-3 * float(logits.std())):
        raise UsageError(
            f"env.model={path} changes its logits after the output matrix (a cap or a scale), and guiding needs logits "
            "that are a linear map of the hidden vector: choose another model."
        )
    return float(weight.float().norm(dim=1).mean()), float(hidden.float().norm(dim=-1).mean())
