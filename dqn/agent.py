"""A trained agent in a program of one's own: agent = dqn.load("runs/NAME"); action = agent.act(obs)."""

import copy
import importlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from dqn.acting.actor import Actor
from dqn.config import parts
from dqn.config.cli import one_sentence, opened_run, run_directory, say
from dqn.config.evaluator import Evaluator
from dqn.config.resume import ALONE, is_agent_alone, stored_text
from dqn.config.schema import check
from dqn.config.trust import modules_to_trust
from dqn.device import choose_device, same_process
from dqn.envs.interface import Interface
from dqn.envs.passed import Passed, factory_of, passed, source, standing
from dqn.envs.spaces import MAX_ACTIONS, without_objects
from dqn.envs.wrappers import make_one
from dqn.errors import UsageError
from dqn.networks.qnetwork import QNetwork
from dqn.networks.records import inner
from dqn.ops.schedules import Constant
from dqn.programs import as_written
from dqn.seeding import parameter_hash
from dqn.state import part
from dqn.tracking.checkpoint import Checkpoints, Snapshot, write_bytes, write_text
from dqn.tracking.logger import read_table, text_log
from dqn.types import Spec

INTERFACE = "environment.json"  # what a run's directory keeps of its environment


@dataclass
class Trained:
    """What lies in a run's directory: its configuration, its environment's spaces (None for tensor worlds), the trained
    network, and the checkpoint that it was read from."""

    cfg: DictConfig
    interface: Interface | None
    spec: Spec
    network: QNetwork
    snapshot: Snapshot


def configuration(directory: Path, trust: Sequence[str] = (), model: str | None = None) -> DictConfig:
    """A run's configuration, whose parts may be made; `model` is the folder of its language model, where it lies
    elsewhere now. Errors: UsageError where it names code that is neither of this package nor of modules in `trust`."""
    cfg = opened_run(directory, trust)
    if model is not None:
        OmegaConf.update(cfg, "env.model", model)
    return cfg


def trained(directory: Path, device: torch.device, cfg: DictConfig) -> Trained:
    """What a run has trained, `cfg` being its configuration, whose parts may be made. Its environment is not made, so
    its package need not be installed.

    Errors: UsageError.
    """
    check(cfg)
    snapshot = Checkpoints(directory / "checkpoints").load(weights_only=True)
    interface = _interface(directory, cfg)
    spec = interface.spec if interface is not None else parts.spec(cfg)
    network = parts.network(cfg, spec)
    try:
        network.load_state_dict(part(snapshot.tensors, "learner/online/"))
    except (RuntimeError, KeyError, ValueError) as error:
        raise UsageError(
            f"The checkpoint in {directory} does not fit its config.yaml: one of them was changed after the run."
        ) from error
    return Trained(cfg, interface, spec, network.to(device), snapshot)


def _interface(directory: Path, cfg: DictConfig) -> Interface | None:
    if "world" in cfg.env or "model" in cfg.env:
        return None
    path = directory / INTERFACE
    try:
        return Interface.of(json.loads(path.read_text()))
    except FileNotFoundError:
        envs = parts.evaluation_environments(cfg, 1)
        envs.close()
        return cast(Any, envs).interface
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise UsageError(
            f"{path} is damaged ({type(error).__name__}): delete it, and the environment is asked."
        ) from error


def load(run: str | Path, device: str = "cpu", trust: Sequence[str] = (), env: Any = None) -> "Agent":
    """The agent of the run in directory `run`; see dqn.load."""
    chosen, _ = choose_device(device)
    directory, given = run_directory("run", str(run)), None if env is None else passed(env)
    trust = [trust] if isinstance(trust, str) else [*trust]
    if given is not None:
        given = replace(given, factory=factory_of(given))
        if given.module is not None:  # the caller names it in this very call
            trust.append(given.module)
    return Agent(trained(directory, chosen, configuration(directory, trust)), chosen, directory, given)


class Agent:
    """A trained network and the spaces it was trained in; acts greedily.

    What it sees is what the run's environments show, wrappers included (`make` makes one), and the actions are theirs.
    Everything takes what one environment shows, or several at once, with one more axis in front.

    `directory` is the run's, None where nothing was kept. `result` is what `result.json` holds, None where the run is
    not finished. `progress` has a dict for each time that numbers were logged: `env_steps`, `episode/return`,
    `evaluation/return`, `learner/loss` and so on, those that there were.
    """

    def __init__(
        self, found: Trained, device: torch.device, directory: Path, given: Passed | None = None, kept: bool = True
    ):
        self.cfg, self.network, self.device, self.spec = found.cfg, found.network.eval(), device, found.spec
        self.interface, self.counters = found.interface, found.snapshot.counters
        self.directory = directory if kept else None
        self.progress: list[dict[str, Any]] = read_table(directory)
        self.result: dict[str, Any] | None = _result(directory)
        self._given = given
        self._make_actor(1)

    def __repr__(self) -> str:
        name = "a tensor world" if self.interface is None else self.interface.id
        return f"Agent({name}, {self.counters['env_steps']:,} env_steps, {self.directory or 'in memory'})"

    def _make_actor(self, environments: int) -> None:
        nothing = torch.Generator(self.device)  # a greedy action needs no random numbers
        self.actor = Actor(
            self.network,
            parts.evaluation_policy(self.cfg, Constant(0.0), sample=False),
            self.device,
            nothing,
            environments,
        )
        self.environments = environments

    def begin(self, environments: int = 1) -> None:
        """An episode begins, in so many environments: whatever a recurrent network remembers is of another."""
        self._make_actor(environments)

    def act(self, obs: Any, mask: Any = None) -> Any:
        """The greedy action for what an environment shows; `mask` [A] are the legal ones, info["action_mask"].

        Of several environments at once, with masks [B, A], the actions of all. Errors: UsageError for observations of
        another shape, or that hold NaN.
        """
        seen, single = self._read(obs, mask)
        action = self.actor.act(seen, 0)
        taken = action if self.interface is None else self.interface.actions(action)
        return taken[0] if single else taken

    @torch.no_grad()
    def q(self, obs: Any, mask: Any = None) -> np.ndarray:
        """What the network says of each action [A], or [B, A], remembering what `act` was shown before; an illegal one
        has types.ILLEGAL. Errors: as `act`."""
        seen, single = self._read(obs, mask)
        q = self.network.step(torch.from_numpy(seen).to(self.device), self.actor.remembered)[0].q.cpu().numpy()
        return q[0] if single else q

    @property
    def parameters_hash(self) -> str:
        """sha256 of the network's parameters: equal hashes mean equal networks, to the last bit."""
        return parameter_hash(self.network.state_dict())

    def evaluate(
        self, episodes: int = 100, seed: int | None = None, epsilon: float | None = None, progress: bool = True
    ) -> dict[str, Any]:
        """Play whole episodes greedily, or with `epsilon`, in environments of its own, and give what an evaluation of
        `result.json` holds: `mean` and `std` of the raw returns, `returns`, `lengths` and so on.

        The same seed gives the same numbers. Errors: UsageError where no environment can be made.
        """
        if not isinstance(episodes, int) or episodes < 1:
            raise UsageError(f"episodes must be a whole number ≥ 1, got {episodes!r}.")
        level = logging.INFO if progress else logging.WARNING
        with one_sentence(), same_process(), text_log(None, level), self._environment():
            torch.set_num_threads(self.cfg.execution.threads)
            evaluator = self.evaluator(shown=progress)
            try:
                if inner(self.spec).states:
                    evaluator.know_optimal()
                result = evaluator(episodes, epsilon, seed, longest=self.counters["longest"])
            finally:
                evaluator.close()
                self.network.eval()
        return result | {"env_steps": self.counters["env_steps"], "device": str(self.device)}

    def evaluator(self, network: Any = None, shown: bool = False) -> Evaluator:
        """What plays evaluations as the run did, with this agent's network or with what has its face."""
        cfg = copy.deepcopy(self.cfg)
        cfg.tracking.evaluate_in = "own"
        prepare = parts.acting_program(cfg, self.device) if network is None else as_written
        return Evaluator(cfg, self.network if network is None else network, self.device, prepare, shown=shown)

    def export(
        self,
        to: str | Path,
        tolerance: float = 1e-5,
        quantize: str | None = None,
        drop: float = 0.05,
        episodes: int = 20,
    ) -> dict[str, Any]:
        """Write the policy to a folder as ONNX and as a torch.export program, with what they take and give, and how far
        they are from the network; what export.json there holds. It needs the extra `export`.

        `quantize="int8"` adds files with int8 weights, refused where they lose more than the share `drop` of the return
        over `episodes`. A student of algorithm=distill is compared with its teacher, where that run is still there.
        Errors: UsageError; RunError where a file says something else than the network to `tolerance`.
        """
        from dqn.exports.folder import export  # needs libraries that acting does not

        if "model" in self.cfg.env:
            raise UsageError("A guided language model is exported by python -m dqn.export run=RUN to=FOLDER.")
        if quantize not in (None, "int8"):
            raise UsageError(f"quantize={quantize} is not known: write quantize=int8, or leave it out.")
        with one_sentence(), self._environment():
            twin, teacher = self._exportable(), self._teacher()
            return export(twin, Path(to), tolerance, quantize == "int8", drop, episodes, teacher)

    def _teacher(self) -> "Agent | None":
        """The agent that this one was distilled from, where its run is still there."""
        run = self.cfg.get("teacher")
        if run is None:
            return None
        try:
            return load(run, trust=modules_to_trust(self.cfg, Path(run)))._exportable()
        except UsageError as error:
            say(f"The teacher is not compared: {error}")
            return None

    def _exportable(self) -> "Agent":
        """This agent on the CPU, in the precision of its parameters, with a network of its own."""
        twin = copy.copy(self)
        twin.device, twin.network = torch.device("cpu"), copy.deepcopy(self.network).to("cpu").requires_grad_(False)
        twin.network.precision = None
        return twin

    def record(
        self,
        path: str | Path | None = None,
        episodes: int = 3,
        seed: int | None = None,
        epsilon: float = 0.0,
        steps: int | None = None,
    ) -> dict[str, Any]:
        """Play episodes and write them to the directory `path` as an mp4 and a GIF, the value of each action drawn
        beside every frame; `video` in the run's directory unless told. At most `steps` decisions, else 3,000.

        The result holds `returns`, `lengths`, `cut` (the last episode was) and `files`. Errors: UsageError where there
        is nothing to be seen.
        """
        from dqn.config.recorder import MOST, Recorder

        if path is None and self.directory is None:
            raise UsageError(
                "This agent has no directory of its own: say where its recording goes, agent.record(PATH)."
            )
        place = Path(path) if path is not None else cast(Path, self.directory) / "video"
        with one_sentence(), same_process(), text_log(None, logging.WARNING), self._environment():
            recorder = Recorder(self.cfg, self.network, self.device, epsilon)
            try:
                place.mkdir(parents=True, exist_ok=True)
                file = place / f"{self.counters['env_steps']}-steps.mp4"
                played, frames = recorder.record(file, episodes, self.cfg.seed if seed is None else seed, steps or MOST)
            finally:
                recorder.close()
        write_bytes(file.with_suffix(".gif"), frames.gif())
        return {
            "returns": played.returns,
            "lengths": played.lengths,
            "cut": played.cut,
            "files": [file, file.with_suffix(".gif")],
        }

    def save(self, path: str | Path) -> None:
        """Write the agent to a directory that `dqn.load` opens: configuration, spaces and weights, no replay memory.

        What lies there of an agent that was saved before is replaced. Errors: UsageError where a run lies there.
        """
        directory = Path(path)
        checkpoints = Checkpoints(directory / "checkpoints")
        if (directory / "config.yaml").exists() and not is_agent_alone(directory):
            raise UsageError(f"{directory} holds a run: save the agent in a directory of its own.")
        weights = {f"learner/online/{name}": x for name, x in self.network.state_dict().items()}
        counters = {**self.counters, ALONE: True}
        with one_sentence():
            directory.mkdir(parents=True, exist_ok=True)
            checkpoints.save(counters["env_steps"], weights, {}, torch.zeros(1), 0, counters)
            write_text(directory / "config.yaml", stored_text(self.cfg))
            if self.interface is not None:
                write_text(directory / INTERFACE, json.dumps(self.interface.plain()))

    def _environment(self) -> AbstractContextManager[None]:
        """The environment that was passed stands for the one that the configuration names."""
        return standing(str(self.cfg.env.get("id")), None if self._given is None else self._given.factory)

    def make(self, **kwargs: Any) -> gymnasium.Env:
        """A Gymnasium environment as the run's, with more arguments: render_mode="human" to watch it.

        Errors: UsageError for worlds that are no single Gymnasium environments.
        """
        env = self.cfg.env
        if self.interface is None or env.vectorization == "vector_entry_point":
            name = type(self).__name__ if self.interface is None else self.interface.id
            raise UsageError(f"{name} is no single Gymnasium environment: make what is to be seen yourself.")
        if kwargs and self._given is not None and self._given.single:
            raise UsageError(
                f"{self.interface.id} was passed as an environment that exists: what it was made with cannot change."
            )
        options = {**cast(dict, OmegaConf.to_container(env.kwargs, resolve=True)), **kwargs}
        limit, wrappers = env.max_episode_steps, parts.wrappers_of(self.cfg)
        most = env.get("max_actions") or MAX_ACTIONS
        for module in env.imports:
            importlib.import_module(module)
        with self._environment():
            return make_one(0, source(env.id), env.imports, options, limit, wrappers, most).env  # pyright: ignore[reportAttributeAccessIssue]  # of Watched

    def generate(
        self, prompt: Any, kl: float | None = None, temperature: float | None = None, seed: int = 0, **how: Any
    ) -> Any:
        """What the language model of a run of env=lm writes after `prompt`, guided by what was learnt: a
        language.Text, or a list of them for a list of prompts.

        `temperature`: that of training unless given; `kl` finds the one at which the policy is so many nats a token
        from the language model, and temperature=inf is the language model itself. `how`: max_tokens, sample.
        Errors: UsageError.
        """
        from dqn.envs.prompts import Prompt
        from dqn.language import Writer, validation

        writer = Writer(self.cfg, self.network, device=self.device)
        if kl is not None:
            temperature = writer.temperature_for(kl, validation(self.cfg), seed)
        many = [prompt] if isinstance(prompt, str) else prompt
        texts = writer.write([Prompt(one, "prompt") for one in many], writer.output(temperature), seed=seed, **how)
        return texts[0] if isinstance(prompt, str) else texts

    def _read(self, obs: Any, mask: Any) -> tuple[np.ndarray, bool]:
        """Observations as the network takes them, [B, *obs_shape], and whether they are of one environment."""
        space, obs = None if self.interface is None else self.interface.observation_space, without_objects(obs)
        single, count = _arrangement(obs, space, self.spec)
        if self.network.state_size and count != self.environments:
            raise UsageError(f"This network remembers {self.environments} environment(s) and is shown {count}: call "
                             f"agent.begin({count}) where their episodes begin.")  # fmt: skip
        batch = _with_axis(obs) if single else obs
        if self.interface is None:
            return np.asarray(batch, self.spec.obs_dtype), single
        if not self.interface.masked:
            return self.interface.observations.read(batch), single
        if self.interface.observations.own_mask is not None:
            mask = self.interface.observations.mask_of(batch)
        elif mask is not None and single:
            mask = [mask]
        return self.interface.observations.read(batch, self._legal(mask, count)), single

    def _legal(self, masks: Any, count: int) -> np.ndarray:
        """The legal actions [B, A]; all where nothing is said. Errors: UsageError for what is no mask."""
        legal = np.ones((count, self.spec.num_actions), bool)
        if masks is not None and self.interface is not None:
            try:
                legal[:] = self.interface.actions.legal(masks)
            except ValueError as error:
                raise UsageError(f"The action mask is one {error}.") from error
        return legal


def _result(directory: Path) -> dict[str, Any] | None:
    """What lies in `result.json`, None where there is nothing or it is damaged."""
    with suppress(OSError, ValueError):
        return json.loads((directory / "result.json").read_text())
    return None


def _arrangement(obs: Any, space: Any, spec: Spec) -> tuple[bool, int]:
    """Whether `obs` is what one environment shows, and of how many it is. Errors: UsageError for any other shape, and
    for what is not a number."""
    if isinstance(space, gymnasium.spaces.Dict):
        if not isinstance(obs, Mapping) or {*space} - {*obs}:
            raise UsageError(f"The observation must be a dict with {', '.join(map(str, space))}, got {_words(obs)}.")
        found = {_arrangement(obs[key], inner, spec) for key, inner in space.items()}
        if len(found) > 1:
            raise UsageError("The entries of the observation are not of equally many environments.")
        return found.pop()
    shape = spec.obs_shape if space is None else space.shape or ()
    try:
        given = np.asarray(obs)
        wrong = given.dtype.kind not in "biuf"
    except ValueError:  # rows of different lengths
        raise UsageError(f"The observation must be an array of shape {shape}.") from None
    if wrong or given.shape[given.ndim - len(shape) :] != shape or given.ndim - len(shape) not in (0, 1):
        raise UsageError(f"The observation must have shape {shape}, or (B, *{shape}) for several, got {_words(obs)}.")
    if given.dtype.kind == "f" and np.isnan(given).any():
        raise UsageError("The observation holds NaN: no action follows from it.")
    single = given.ndim == len(shape)
    return single, 1 if single else len(given)


def _words(obs: Any) -> str:
    if isinstance(obs, Mapping):
        return f"a dict with {', '.join(map(str, obs))}"
    given = np.asarray(obs)
    return f"{given.dtype} of shape {given.shape}"


def _with_axis(obs: Any) -> Any:
    if isinstance(obs, Mapping):
        return {key: _with_axis(inner) for key, inner in obs.items()}
    return np.asarray(obs)[None]
