"""Writing with a language model that a run has learnt to guide, and folding what was learnt into a stock checkpoint."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import exp, inf, log, sqrt
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from dqn.causal_lm import CausalLM, load
from dqn.config import parts
from dqn.envs.lm import nucleus, prompts_of, score_of
from dqn.envs.prompts import Prompt, encoded
from dqn.errors import UsageError
from dqn.networks.heads import Expected
from dqn.networks.quantiles import Quantile

ROUNDS, FACTOR = 7, 8.0  # of the search for a temperature, and how far from the first guess it looks
BATCH = 32  # texts that are written and read at once
NEVER = float("-inf")
CARD = """\
# A guided language model

The output matrix W of `{name}` was replaced by W (I + M / τ). The matrix M was learnt by Q-learning (`{algorithm}`)
from {score}, and the temperature τ is {temperature:.6g}. Everything else is as it was, its licence included.

The values were learnt for the {count} likeliest tokens of each position: sample with `top_k={count}`, as the
generation config says.
"""


class Likeliest(nn.Module):
    """An output layer whose logits are those of the K likeliest tokens and −∞ elsewhere, hidden [..., d] → [..., V]."""

    def __init__(self, output: nn.Module, count: int, top_p: float = 1.0):
        super().__init__()
        self.output, self.count, self.top_p = output, count, top_p

    def forward(self, hidden: Tensor) -> Tensor:
        logits = self.output(hidden).float()
        best, tokens = logits.topk(self.count, -1)
        if self.top_p < 1:
            best = best.masked_fill(~nucleus(best - logits.logsumexp(-1, keepdim=True), self.top_p), NEVER)
        return torch.full_like(logits, NEVER).scatter(-1, tokens, self.changed(hidden, best, tokens))

    def changed(self, hidden: Tensor, best: Tensor, tokens: Tensor) -> Tensor:
        """The candidates' logits [..., K], as they are here."""
        return best


class Guided(Likeliest):
    """The same, guided by values: logits of the K likeliest tokens + (q(s, a) − q(s, a_1)) / temperature, which differs
    from q / temperature by a number of each state. A head that was not trained changes no logit at all."""

    def __init__(self, output: nn.Module, head: Any, temperature: float, count: int, top_p: float = 1.0):
        super().__init__(output, count, top_p)
        self.head, self.temperature = head, temperature

    def changed(self, hidden: Tensor, best: Tensor, tokens: Tensor) -> Tensor:
        q = values(self.head, hidden, tokens)
        return best + (q - q[..., :1]) / self.temperature


def values(head: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    """q of tokens [..., K] after hidden vectors [..., d], as the network has them."""
    real = torch.get_default_dtype()
    return head(torch.cat([hidden.to(real), tokens.to(real)], -1)).q


def with_output(model: Any, output: nn.Module) -> Any:
    """A language model that shares everything with `model` but its output layer."""
    other = copy.copy(model)
    other._modules = dict(model._modules)  # a copy of a module shares them, and one of them is another
    other.set_output_embeddings(output)
    return other


@dataclass
class Text:
    """What was written after a prompt. `log_prob` and `kl` are means over its tokens: the log-probability under the
    language model, and how far the policy is from it. `advantages` say of each piece of the text what its token was
    worth more than the language model's own choice would have been."""

    prompt: str
    text: str
    pieces: list[str]
    advantages: list[float]
    log_prob: float
    kl: float
    score: float | None = None
    second_score: float | None = None

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class Writer:
    """Writes with the language model of a run: as it is (`temperature=inf`), or guided by what the run has learnt."""

    def __init__(self, cfg: DictConfig, network: Any, device: torch.device | None = None):
        if "model" not in cfg.env:
            raise UsageError("This run has no language model: generate is for runs of env=lm.")
        self.cfg, self.network = cfg, network.eval()
        self.lm: CausalLM = load(cfg.env.model, cfg.env.dtype, device)
        self.count, self.top_p, self.length = cfg.env.candidates, cfg.env.top_p, cfg.env.max_tokens
        self.scores = [score_of(cfg.env, which) for which in ("score", "second_score")]
        self.temperature = float(parts.evaluation_policy(cfg, None).temperature(0))

    def output(self, temperature: float | None = None) -> Likeliest:
        """The output layer of the policy; None is the temperature that the run was trained with."""
        temperature = self.temperature if temperature is None else temperature
        if not temperature > 0:
            raise UsageError(f"temperature must be > 0, got {temperature}.")
        if temperature == inf:
            return Likeliest(self.lm.output, self.count, self.top_p)
        return Guided(self.lm.output, self.network.head, temperature, self.count, self.top_p)

    @torch.no_grad()
    def tokens(
        self,
        prompts: Sequence[Prompt],
        output: nn.Module,
        seed: int = 0,
        sample: bool = True,
        max_tokens: int | None = None,
        streamer: Any = None,
    ) -> list[tuple[list[int], list[int]]]:
        """What the library's own `generate` writes after each prompt: (tokens of the prompt, tokens of the text)."""
        model, length = with_output(self.lm.model, output), max_tokens or self.length
        asked, written = encoded(self.lm, prompts, length), []
        end = self.lm.ends[0] if self.lm.ends else 0
        with torch.random.fork_rng(devices=[] if self.lm.device.type == "cpu" else [self.lm.device]):
            torch.manual_seed(seed)
            for low in range(0, len(asked), BATCH):
                some = asked[low : low + BATCH]
                longest = max(map(len, some))
                given = torch.tensor([[end] * (longest - len(p)) + p for p in some], device=self.lm.device)
                mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in some], device=self.lm.device)
                found = model.generate(
                    given, attention_mask=mask, max_new_tokens=length, do_sample=sample, temperature=1.0, top_k=0,
                    top_p=1.0, pad_token_id=end, eos_token_id=[*self.lm.ends] or None, streamer=streamer,
                )  # fmt: skip
                written += [self._ended(row) for row in found[:, longest:].tolist()]
        return [*zip(asked, written, strict=True)]

    def _ended(self, tokens: list[int]) -> list[int]:
        """Up to and with the end token: what stands after it only fills the batch."""
        ends = [i for i, token in enumerate(tokens) if token in self.lm.ends]
        return tokens[: ends[0] + 1] if ends else tokens

    def write(self, prompts: Sequence[Prompt], output: nn.Module | None = None, **how: Any) -> list[Text]:
        """Write after each prompt and measure what was written. `how`: seed, sample, max_tokens, streamer."""
        output = self.output() if output is None else output
        pairs = self.tokens(prompts, output, **how)
        texts = []
        for low in range(0, len(pairs), BATCH):
            texts += self._measured(prompts[low : low + BATCH], pairs[low : low + BATCH], output)
        return texts

    @torch.no_grad()
    def _measured(self, prompts: Sequence[Prompt], pairs: Any, output: nn.Module) -> list[Text]:
        """Read texts in one piece. KL(π ‖ π0) = Σ_a π(a) (log π(a) − log π0(a)), with π0 as the language model has it
        among its own candidates: its logits less the log of the candidates' exponentials."""
        rows = [prompt + text for prompt, text in pairs]
        longest = max(map(len, rows))
        given = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self.lm.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.lm.device)
        hidden = self.lm.model.base_model(input_ids=given, attention_mask=mask).last_hidden_state
        texts = []
        for row, (prompt, (before, written)) in enumerate(zip(prompts, pairs, strict=True)):
            seen = hidden[row, len(before) - 1 : len(before) - 1 + len(written)]  # [T, d] before each token
            texts.append(self._one(prompt, written, seen, output))
        return texts

    def _one(self, prompt: Prompt, written: list[int], seen: Tensor, output: nn.Module) -> Text:
        """One text from what the model saw before each of its tokens, [T, d]."""
        taken = torch.tensor(written, device=seen.device).unsqueeze(-1)
        logits, log_pi = self.lm.output(seen).float(), output(seen).log_softmax(-1)  # [T, V]
        best, tokens = logits.topk(self.count, -1)
        log_prior = logits - best.logsumexp(-1, keepdim=True)
        kl = (log_pi.exp() * (log_pi - log_prior)).nan_to_num(0.0).sum(-1)  # 0 · −∞ is 0
        q = values(self.network.head, seen, torch.cat([taken, tokens], -1))  # [T, 1 + K]
        advantage = q[:, 0] - (best.softmax(-1) * q[:, 1:]).sum(-1)
        log_prob = logits.log_softmax(-1).gather(-1, taken)
        texts = [self.lm.decode(written[: i + 1]) for i in range(len(written))]
        pieces = [after[len(before) :] for before, after in zip(["", *texts], texts, strict=False)]
        given = [None if score is None else score(prompt, texts[-1]) for score in self.scores]
        return Text(
            prompt.text, texts[-1], pieces, advantage.tolist(), float(log_prob.mean()), float(kl.mean()), *given
        )

    def stock(self, temperature: float) -> Likeliest:
        """The output layer of the exported model, which is guided over the whole vocabulary."""
        layer = copy.copy(self.lm.output)
        layer._parameters = {
            **layer._parameters,
            "weight": nn.Parameter(self.folded(temperature).to(self.lm.embeddings.dtype), False),
        }
        return Likeliest(layer, self.count, self.top_p)

    def temperature_for(self, kl: float, prompts: Sequence[Prompt], seed: int = 0, exported: bool = False) -> float:
        """The temperature at which the policy, guided or `exported`, is `kl` nats a token from the language model.

        Texts are written at each of some temperatures, with the same luck; the search halves an interval of their
        logarithms. The first guess is that of a small change, KL ≈ Var q / (2 τ²). Errors: UsageError for no positive
        KL, or where values do not differ.
        """
        if not kl > 0:
            raise UsageError(f"kl must be > 0, got {kl}.")
        guess = self._spread(prompts, seed) / sqrt(2 * kl)
        if guess == 0:
            raise UsageError("This run's values are the same for every token: train it before it guides.")
        low, high = log(guess / FACTOR), log(guess * FACTOR)
        for _ in range(ROUNDS):
            middle = (low + high) / 2
            policy = self.stock(exp(middle)) if exported else self.output(exp(middle))
            texts = self.write(prompts, policy, seed=seed)
            too_far = sum(text.kl for text in texts) / len(texts) > kl
            low, high = (middle, high) if too_far else (low, middle)
        return exp((low + high) / 2)

    @torch.no_grad()
    def _spread(self, prompts: Sequence[Prompt], seed: int) -> float:
        """The standard deviation of q under the language model's own choice, over texts of its own."""
        spread = []
        for before, written in self.tokens(prompts, self.output(inf), seed):
            given = torch.tensor([before + written], device=self.lm.device)
            hidden = self.lm.model.base_model(input_ids=given).last_hidden_state[0, len(before) - 1 : -1]
            best, tokens = self.lm.output(hidden).float().topk(self.count, -1)
            q, pi = values(self.network.head, hidden, tokens), best.softmax(-1)
            mean = (pi * q).sum(-1, keepdim=True)
            spread.append((pi * (q - mean).square()).sum(-1).mean())
        return float(torch.stack(spread).mean().sqrt())

    def folded(self, temperature: float | None = None) -> Tensor:
        """The output matrix W (I + M / temperature) [V, d] of a stock model whose logits are those of the guided one,
        for every token of the vocabulary: v(s) is the same for all of them and cancels in the softmax.

        Errors: UsageError where the head's values are not linear in the hidden vector.
        """
        head, temperature = self.network.head, self.temperature if temperature is None else temperature
        if not isinstance(head, (Expected, Quantile)):
            raise UsageError(
                f"The values of {type(head).__name__} are not linear in the hidden vector, so no output matrix has "
                "them: train with head=expected or head=quantile to export, or use python -m dqn.generate."
            )
        weight = self.lm.embeddings.float()
        return (
            weight
            + weight
            @ head.output.bilinear().to(  # pyright: ignore[reportCallIssue]
                weight.device, weight.dtype
            )
            / temperature
        )

    def exported(self, temperature: float | None = None, dtype: torch.dtype | None = None) -> Any:
        """The guided policy as a stock model: the language model with that output matrix, not tied to its inputs."""
        own = self.lm.embeddings.dtype if dtype is None else dtype
        config = copy.deepcopy(self.lm.model.config)
        config.tie_word_embeddings = False
        model = type(self.lm.model)(config).to(own)
        layer = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
        model.load_state_dict({**self.lm.model.state_dict(), f"{layer}.weight": self.folded(temperature)})
        model.generation_config = copy.deepcopy(self.lm.model.generation_config)
        sampled = {"do_sample": True, "top_k": self.count, "top_p": self.top_p, "temperature": 1.0}
        model.generation_config.update(**sampled)
        return model.eval().requires_grad_(False)

    def export(self, folder: Path, temperature: float | None = None, dtype: torch.dtype | None = None) -> None:
        """Write the guided policy as a stock checkpoint: model, tokenizer, generation config and a card. transformers
        loads it without this package. Errors: UsageError where the head cannot be folded."""
        model = self.exported(temperature, dtype)
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        self.lm.tokenizer.save_pretrained(folder)
        used = self.temperature if temperature is None else temperature
        (folder / "README.md").write_text(CARD.format(
            name=Path(self.lm.path).name, temperature=used, count=self.count, algorithm=self.cfg.chosen.algorithm,
            score=self.cfg.env.score or f"the task {self.cfg.env.task}",
        ))  # fmt: skip


def validation(cfg: DictConfig, most: int = 16) -> list[Prompt]:
    """Prompts on which a temperature is chosen: of a task's split validation, or the first of env.test_prompts."""
    found = prompts_of(parts.language_options(cfg), "validation")
    return found[:: max(1, len(found) // most)][:most]


def summary(texts: Sequence[Text]) -> dict[str, float]:
    """Means over texts: score, second score, log-probability and KL a token; and distinct-2, the share of pairs of
    words that are different (Li et al., 2016)."""
    found = {}
    for name in ("score", "second_score", "log_prob", "kl"):
        given = [value for text in texts if (value := getattr(text, name)) is not None]
        if given:
            found[name] = sum(given) / len(given)
    pairs = [pair for text in texts for pair in zip(text.text.split(), text.text.split()[1:], strict=False)]
    found["distinct_2"] = len({*pairs}) / max(1, len(pairs))
    return found
