"""A frozen causal language model as environments: the action is which of its K likeliest next tokens to take.

An episode is a text that grows after a prompt. All E texts grow together, so that the model reads a token of each at
a tick; a text that has ended waits until all have, and then E new prompts begin. Ticks in which an environment waits
are marked `reset`, as Gymnasium's NEXT_STEP mode marks its own: nothing was decided, and nothing is learnt from them.
"""

import logging
from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from dqn.causal_lm import CausalLM, Decoding, load
from dqn.envs.prompts import Prompt, Score, encoded, of_task, read
from dqn.errors import UsageError
from dqn.types import MASK, PRIOR, Spec, Step, layout

log = logging.getLogger("dqn")
LIMITS = ("truncate", "terminate")
MANY = 100  # texts without an end, of which it is said that none was scored


def spec_of(lm: CausalLM, candidates: int, masked: bool) -> Spec:
    """What is seen at a position, as a record: the hidden vector `hidden` [d], the candidates' numbers `token` [K],
    their log-probabilities under the model [K], and where `masked` which of them may be taken [K]."""
    vocabulary, width = lm.embeddings.shape
    if not 2 <= candidates <= vocabulary:
        raise UsageError(f"env.candidates must be between 2 and the vocabulary's {vocabulary:,}, got {candidates}.")
    real = np.dtype(np.float64 if torch.get_default_dtype() == torch.float64 else np.float32)
    parts = [
        ("hidden", Spec((width,), real, candidates)),
        ("token", Spec((candidates,), np.dtype(np.int32), candidates)),
        (PRIOR, Spec((candidates,), real, candidates)),
    ]
    if masked:
        parts.append((MASK, Spec((candidates,), np.dtype(bool), candidates)))
    _, total = layout(tuple(parts))
    return Spec((total,), np.dtype(np.uint8), candidates, 0, tuple(parts))


class LanguageEnvs:
    """E texts of a frozen language model: `reset(seed) → obs`, `step(action) → Step`, as envs.gym.GymEnvs.

    An action a names candidate a: the tokens are sorted by their probability, the likeliest is 0. An end token ends
    the episode (terminated). After `max_tokens` tokens the episode is over, too: with `limit=terminate` the limit is
    the end of the text, which is scored (terminated); with `limit=truncate` the text is unfinished, so it is not scored
    and the value of going on stands in its place (truncated).

    The reward is the text's `score` at its end; with `shaping` it is how much each token changed it, the
    potential-based form of the same return (Ng, Harada & Russell, 1999), where the empty text scores 0. `second` is a
    score that is reported and never learnt from. With `top_p` below 1 only the likeliest candidates that together have
    this probability may be taken (Holtzman et al., 2020), the first in any case.

    Without a score, as where recorded texts bring their rewards, nothing is rewarded here.
    Errors: UsageError for prompts or options that cannot be used.
    """

    mode, broken = AutoresetMode.NEXT_STEP, False

    def __init__(
        self, lm: CausalLM, prompts: list[Prompt], score: Score | None, second: Score | None = None, num_envs: int = 16,
        max_tokens: int = 16, candidates: int = 32, top_p: float = 1.0, limit: str = "truncate", shaping: bool = False,
    ):  # fmt: skip
        if limit not in LIMITS:
            raise UsageError(f"env.limit must be {' or '.join(LIMITS)}, got {limit!r}.")
        self.lm, self.prompts, self.score, self.second = lm, prompts, score, second
        self.num_envs, self.limit, self.top_p, self.shaping = num_envs, max_tokens, top_p, shaping
        self.at_limit = limit
        self.spec = spec_of(lm, candidates, top_p < 1)
        self.tokens = encoded(lm, prompts, max_tokens)
        self.id = f"lm:{lm.path.rstrip('/').rpartition('/')[2]}"
        self.episode_info = ("log_prob", "tokens", *(["second_score"] if second else []))
        self.generator, self.order = np.random.default_rng(0), np.zeros(0, np.int64)
        self.done, self.cut = np.ones(num_envs, bool), 0.0

    def set_cap(self, cap: int | None) -> None:
        """Texts have a limit of their own."""

    def optimal_q(self, gamma: float) -> None:
        """Q* is not known."""

    def close(self) -> None:
        """Nothing is open."""

    def reset(self, seed: int) -> np.ndarray:
        """Begin every environment anew; the order of the prompts depends on the seed alone."""
        self.generator, self.order = np.random.default_rng(seed), np.zeros(0, np.int64)
        return self._begin()

    def _begin(self) -> np.ndarray:
        """E prompts, each of them once before any comes again."""
        while len(self.order) < self.num_envs:
            self.order = np.concatenate([self.order, self.generator.permutation(len(self.prompts))])
        chosen, self.order = self.order[: self.num_envs], self.order[self.num_envs :]
        self.now = [self.prompts[i] for i in chosen]
        self.texts: list[list[int]] = [[] for _ in chosen]
        self.done = np.zeros(self.num_envs, bool)
        self.potential, self.log_prob = np.zeros(self.num_envs), np.zeros(self.num_envs)
        self.decoding = Decoding(self.lm, [self.tokens[i] for i in chosen])
        self.obs = self._seen()
        return self.obs

    def step(self, action: np.ndarray) -> Step:
        """One tick of all texts: action [E] int64 → Step."""
        nothing = np.zeros(self.num_envs, bool)
        if self.done.all():
            return Step(self._begin(), np.zeros(self.num_envs), nothing, nothing, ~nothing)
        waits, rows = self.done.copy(), np.arange(self.num_envs)
        taken = self.candidates[rows, action]  # [E] tokens
        for e in (~waits).nonzero()[0]:
            self.texts[e].append(int(taken[e]))
        self.log_prob += np.where(waits, 0.0, self.log_probs[rows, action])
        ended = np.isin(taken, self.lm.ends) & ~waits
        full = np.array([len(text) >= self.limit for text in self.texts]) & ~waits & ~ended
        terminated, truncated = (ended | full, nothing) if self.at_limit == "terminate" else (ended, full)
        self.done = waits | terminated | truncated
        self._warn_of_no_end(int(truncated.sum()), bool(terminated.any()))
        if not terminated[~waits].all():  # else nobody looks at what comes after: no value stands there
            self.decoding.append(torch.from_numpy(taken))
            seen = self._seen()
            seen[waits] = self.obs[waits]
            self.obs = seen
        return Step(
            self.obs,
            self._rewards(waits, terminated),
            terminated,
            truncated,
            waits,
            episode_info=self._episode_info(waits),
        )

    def _warn_of_no_end(self, cut: int, ended: bool) -> None:
        """Say once where texts only reach their limit, as none of them is scored then."""
        self.cut = -inf if ended else self.cut + cut
        if self.cut >= MANY and self.score is not None and not self.shaping:
            self.cut = -inf
            log.warning(
                "None of the first %d texts has ended before env.max_tokens=%d, so none was scored: raise "
                "env.max_tokens, or set env.limit=terminate to score a text at the limit.", MANY, self.limit,
            )  # fmt: skip

    def _rewards(self, waits: np.ndarray, terminated: np.ndarray) -> np.ndarray:
        reward = np.zeros(self.num_envs)
        if self.score is None:
            return reward
        for e in map(int, (~waits if self.shaping else terminated).nonzero()[0]):
            value = self.score(self.now[e], self.text(e))
            reward[e], self.potential[e] = value - self.potential[e], value if self.shaping else 0.0
        return reward

    def _episode_info(self, waits: np.ndarray) -> np.ndarray | None:
        """For each text that ended now: its mean log-probability a token, its length, and its second score."""
        ended = (self.done & ~waits).nonzero()[0]
        if not len(ended):
            return None
        episode_info = np.full((self.num_envs, len(self.episode_info)), np.nan)
        for e in map(int, ended):
            count = len(self.texts[e])
            episode_info[e, :2] = self.log_prob[e] / count, count
            if self.second is not None:
                episode_info[e, 2] = self.second(self.now[e], self.text(e))
        return episode_info

    def text(self, e: int) -> str:
        """What environment e has written after its prompt so far."""
        return self.lm.decode(self.texts[e])

    def _seen(self) -> np.ndarray:
        """The record [E, bytes] of the newest position, and the candidates that actions name."""
        log_probs, tokens = candidates_of(self.decoding.logits, self.spec.num_actions)
        parts: list[Tensor] = [self.decoding.hidden, tokens, log_probs]
        self.candidates, self.log_probs = tokens.cpu().numpy(), log_probs.cpu().numpy()
        if len(self.spec.parts) > len(parts):
            parts.append(nucleus(log_probs, self.top_p))
        return packed(self.spec, parts)


def packed(spec: Spec, parts: Sequence[Tensor]) -> np.ndarray:
    """The parts of B records [B, ...] in their order → [B, bytes], as types.layout places them."""
    offsets, _ = layout(spec.parts)
    record = np.zeros((len(parts[0]), *spec.obs_shape), np.uint8)
    for part, offset, (_, kind) in zip(parts, offsets, spec.parts, strict=True):
        raw = np.ascontiguousarray(part.cpu().numpy().astype(kind.obs_dtype)).view(np.uint8)
        record[:, offset : offset + raw.shape[1]] = raw
    return record


def candidates_of(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The log-probabilities [E, K] of the K likeliest tokens, likeliest first, and their numbers [E, K]; of the whole
    vocabulary, so that they add up to less than 1. logits [E, V] float32."""
    best, tokens = logits.topk(count, -1)
    return best - logits.logsumexp(-1, keepdim=True), tokens


def nucleus(log_probs: Tensor, top_p: float) -> Tensor:
    """Which candidates may be taken [E, K] bool: those before which less than `top_p` of the probability stands."""
    probs = log_probs.exp()
    return (probs.cumsum(-1) - probs) < top_p


def prompts_of(options: Any, split: str) -> list[Prompt]:
    """The prompts of the options of conf/env/lm.yaml, of `split`: train, validation or test; of files, all that do not
    learn are env.test_prompts. Errors: UsageError."""
    if (options["task"] is None) == (options["prompts"] is None):
        raise UsageError(
            "Name either env.prompts=FILE with env.score=module:function, or env.task=NAME, or replay.path=FILE.jsonl."
        )
    if options["task"] is not None:
        return of_task(options["task"], split)
    return read(options["prompts"] if split == "train" else options["test_prompts"] or options["prompts"])


def score_of(options: Any, which: str = "score") -> Score | None:
    """The `score` or the `second_score` of the options; None where there is none. Errors: UsageError."""
    if options[which] is not None:
        return Score(f"env.{which}", options[which])
    return Score.of_task(options["task"], which) if options["task"] is not None else None


def make_language(
    options: dict[str, Any], num_envs: int, device: torch.device | str, split: str, scored: bool = True
) -> LanguageEnvs:
    """The environments that the options of conf/env/lm.yaml describe, with the prompts of `split`; `scored`: a score
    there must be. Errors: UsageError."""
    prompts, score, second = prompts_of(options, split), score_of(options), score_of(options, "second_score")
    if score is None and scored:
        raise UsageError("env.prompts has no score: name one with env.score=module:function.")
    lm = load(options["model"], options["dtype"], device)
    numbers = {name: options[name] for name in ("max_tokens", "candidates", "top_p", "limit", "shaping")}
    return LanguageEnvs(lm, prompts, score, second, num_envs, **numbers)
