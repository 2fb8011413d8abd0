"""Recorded texts with their rewards, as experience for env=lm: a file of JSON lines, read by the language model once.

A line has trl's names: `prompt`, `completion` and `reward`; or `messages`, whose assistant turns may have a `reward` of
their own beside the line's. Only the assistant's tokens are decisions. What the model makes of them is kept in the
user's cache, so that a second training begins at once.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dqn.causal_lm import CausalLM
from dqn.envs.lm import candidates_of, nucleus, packed
from dqn.envs.prompts import objects
from dqn.errors import UsageError
from dqn.types import Rows, Spec

log = logging.getLogger("dqn")
BATCH, BLOCK, VERSION = 16, 1024, 1


@dataclass
class Recorded:
    """The tokens of one line; `decided` are the places of those that were the assistant's, with a reward each."""

    tokens: list[int]
    decided: list[int]
    rewards: list[float]


def recorded_lines(path: str, lm: CausalLM) -> list[Recorded]:
    """Every line of a file. Errors: UsageError, which names the file and the number of the line."""
    found = []
    for row, where in objects(path, "replay.path"):
        one = _turns(row, where, lm) if "messages" in row else _pair(row, where, lm)
        if len(one.tokens) > lm.context:
            raise UsageError(
                f"{where} has {len(one.tokens)} tokens, more than the model's context of {lm.context}: shorten it."
            )
        if one.decided and one.decided[0] == 0:
            raise UsageError(f"{where} has no tokens before its completion: give a prompt.")
        if not one.decided:
            raise UsageError(f"{where} has no token of the assistant: give a completion.")
        found.append(one)
    if not found:
        raise UsageError(f"replay.path={path} holds no lines: write one object on each.")
    return found


def _reward(row: Mapping[str, Any], where: str) -> float:
    value = row.get("reward")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise UsageError(f"{where} has no `reward`, or one that is no number: give a number.")
    return float(value)


def _pair(row: Mapping[str, Any], where: str, lm: CausalLM) -> Recorded:
    prompt, completion, reward = row.get("prompt"), row.get("completion"), _reward(row, where)
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise UsageError(f"{where} needs `prompt` and `completion` as text, or `messages`.")
    before, after = lm.encode(prompt), [*lm.encode(completion), *lm.ends[:1]]
    decided = [*range(len(before), len(before) + len(after))]
    return Recorded(before + after, decided, [0.0] * (len(after) - 1) + [reward])


def _turns(row: Mapping[str, Any], where: str, lm: CausalLM) -> Recorded:
    """A conversation: what the chat template puts after `messages[:i]` for turn i is what the assistant decided."""
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(m, dict) and {"role", "content"} <= {*m} for m in messages):
        raise UsageError(f"{where} needs `messages` as a list of objects with `role` and `content`.")
    said = [{"role": m["role"], "content": m["content"]} for m in messages]
    turns = [i for i, message in enumerate(said) if message["role"] == "assistant"]
    decided, rewards, tokens = [], [], lm.encode(said, reply=False)
    for i in turns:
        before, after = lm.encode(said[:i]), lm.encode(said[: i + 1], reply=False)
        if tokens[: len(before)] != before or tokens[: len(after)] != after:
            raise UsageError(f"{where}: the model's chat template changes earlier turns, so they cannot be told apart.")
        own = [*range(len(before), len(after))]
        ends = [place for place in own if tokens[place] in lm.ends]
        own = own[: own.index(ends[0]) + 1] if ends else own
        given = messages[i].get("reward", row.get("reward") if i == turns[-1] else 0.0)
        decided += own
        rewards += [0.0] * (len(own) - 1) + [_reward({"reward": given}, f"{where}, turn {i + 1}")]
    return Recorded(tokens[: decided[-1] + 1] if decided else tokens, decided, rewards)


def features(path: str, lm: CausalLM, count: int) -> dict[str, Tensor]:
    """What the model sees before each decision of a file: `hidden` [M, d] in bfloat16, `token` [M, K] int32,
    `log_prior` [M, K], and `action`, `reward`, `ends` [M]; from the user's cache where it was read before.

    Candidates are the K likeliest tokens; where the written one is none of them it takes the place of the last.
    """
    place = _cache() / f"{_key(path, lm, count)}.safetensors"
    if place.is_file():
        log.info("What the language model makes of %s was kept in %s", path, place)
        return load_file(place)
    found = _read(recorded_lines(path, lm), lm, count)
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_suffix(f".{os.getpid()}")
    save_file(found, unfinished)
    unfinished.replace(place)
    log.info("The language model has read %s once: %s keeps what it makes of it", path, place)
    return found


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dqn" / "features"


def _key(path: str, lm: CausalLM, count: int) -> str:
    """Another key for another file, model, dtype or number of candidates."""
    weights = [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in sorted(Path(lm.path).iterdir())]
    said = [VERSION, count, str(lm.embeddings.dtype), *weights]
    return hashlib.sha256(Path(path).read_bytes() + "\n".join(map(str, said)).encode()).hexdigest()[:32]


@torch.no_grad()
def _read(lines: Sequence[Recorded], lm: CausalLM, count: int) -> dict[str, Tensor]:
    parts: list[dict[str, Tensor]] = []
    for low in range(0, len(lines), BATCH):
        some = lines[low : low + BATCH]
        longest = max(len(line.tokens) for line in some)
        given = torch.tensor([line.tokens + [0] * (longest - len(line.tokens)) for line in some], device=lm.device)
        mask = torch.tensor([[n < len(line.tokens) for n in range(longest)] for line in some], device=lm.device)
        hidden = lm.model.base_model(input_ids=given, attention_mask=mask.long()).last_hidden_state
        parts += [_one(line, hidden[row], lm, count) for row, line in enumerate(some)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _one(line: Recorded, hidden: Tensor, lm: CausalLM, count: int) -> dict[str, Tensor]:
    """The decisions of one line."""
    places = torch.tensor(line.decided)
    before, taken = hidden[(places - 1).to(hidden.device)], torch.tensor(line.tokens)[places]
    logits = lm.output(before).float()
    log_prior, tokens = (x.cpu() for x in candidates_of(logits, count))
    same = tokens == taken[:, None]
    rank = torch.where(same.any(1), same.long().argmax(1), count - 1)  # else it takes the last one's place
    own = logits.log_softmax(-1).cpu().gather(1, taken[:, None])
    ends = torch.zeros(len(places), dtype=torch.bool)
    ends[-1] = True
    return {
        "hidden": before.to(torch.bfloat16).cpu(),
        "token": tokens.scatter(1, rank[:, None], taken[:, None]).int(),
        "log_prior": log_prior.scatter(1, rank[:, None], own),
        "action": rank,
        "reward": torch.tensor(line.rewards),
        "ends": ends,
    }


def language_rows(path: str, lm: CausalLM, spec: Spec, top_p: float = 1.0) -> Iterator[Rows]:
    """The decisions of a file as blocks of rows, each text closed by a row in which nothing was decided.

    Errors: UsageError."""
    found = features(path, lm, spec.num_actions)
    last = found["ends"].nonzero()[:, 0]
    order = torch.cat([torch.arange(len(found["ends"])), last]).sort(stable=True).values  # an end twice: once to close
    closing = torch.zeros(len(order), dtype=torch.bool)
    closing[1:] = order[1:] == order[:-1]
    for low in range(0, len(order), BLOCK):
        rows, shut = order[low : low + BLOCK], closing[low : low + BLOCK]
        seen = order[low : low + BLOCK + 1]
        seen = seen if len(seen) > len(rows) else torch.cat([seen, seen[-1:]])  # what follows is anything
        parts = [found["hidden"][seen].float(), found["token"][seen], found["log_prior"][seen]]
        if len(spec.parts) > len(parts):
            legal = nucleus(found["log_prior"][seen], top_p)
            parts.append(legal.scatter(1, found["action"][seen, None], True))
        ended, nothing = found["ends"][rows] & ~shut, torch.zeros(len(rows), dtype=torch.bool)
        fields = {
            "action": found["action"][rows].masked_fill(shut, 0), "terminated": ended, "truncated": nothing,
            "reward": found["reward"][rows].masked_fill(shut, 0.0).to(torch.get_default_dtype()), "reset": shut,
        }  # fmt: skip
        obs = torch.from_numpy(packed(spec, parts))
        yield Rows(obs.unsqueeze(1), **{name: field.unsqueeze(1) for name, field in fields.items()})
