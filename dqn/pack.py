"""Pack a trained agent into one folder that can be shared: python -m dqn.pack run=RUN to=DIR."""

import json
from math import isfinite, nan
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dqn.agent import Agent, load
from dqn.config.cli import names, say, text, verb, verb_options, whole
from dqn.config.trust import modules_to_trust
from dqn.errors import UsageError
from dqn.reports.card import card
from dqn.reports.records import Record, finite, record
from dqn.tracking.checkpoint import write_bytes, write_text
from dqn.tracking.logger import Table

OPTIONS = {
    "run": text, "to": text, "episodes": whole(1), "license": text, "device": text, "trust": names,
}  # fmt: skip
USAGE = (
    "usage: python -m dqn.pack run=RUN to=DIR [episodes=…, of a new evaluation] [license=mit] [device=auto] "
    "[trust=[module,…] whose parts or environments the run uses]"
)
PLACES = ("init_from", "replay.path")  # options that name files of this machine


def pack(arguments: list[str]) -> None:
    """Writes weights, configuration, spaces, result, recording and a card; the replay memory stays where it is."""
    given = verb_options(arguments, USAGE, OPTIONS, "run")
    if not given.get("to"):
        raise UsageError(f"No folder was named; {USAGE}.")
    folder = Path(given["to"])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"to={folder} is not empty: name a new folder.")
    agent = load(given["run"], given.get("device", "auto"), given.get("trust", ()))
    if "model" in agent.cfg.env:
        raise UsageError("A guided language model is taken away by python -m dqn.export run=RUN to=FOLDER.")
    run = record(Path(given["run"]))
    evaluation = agent.evaluate(given["episodes"]) if "episodes" in given else known_evaluation(agent, run)
    trust = modules_to_trust(agent.cfg, Path(given["run"]) / "config.yaml")
    agent.cfg = shared(agent.cfg, folder)
    agent.save(folder)
    recording = write_results(agent, run, evaluation, folder)
    write_text(folder / "README.md", card(run, evaluation, trust, recording, given.get("license")))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    say(f"{folder.resolve()} holds the agent, {size / 1e6:.2f} MB")
    if evaluation is None:
        say("  evaluated:  not yet; episodes=100 plays some, for the card")
    if not recording:
        say(f"  recording:  none of these weights; python -m dqn.record run={given['run']} makes one")
    say(f"  open:       dqn.load({str(folder)!r}), python -m dqn.evaluate run={folder}")
    say(f"  share:      hf upload USER/NAME {folder}")


def shared(cfg: DictConfig, folder: Path) -> DictConfig:
    """The configuration without the places of this machine: of files that it names the last word is left."""
    shared = OmegaConf.merge(cfg, {"run": {"dir": folder.name}})
    assert isinstance(shared, DictConfig)
    for option in PLACES:
        if isinstance(place := OmegaConf.select(shared, option, throw_on_missing=False), str):
            OmegaConf.update(shared, option, Path(place).name)
    return shared


def known_evaluation(agent: Agent, run: Record) -> dict[str, Any] | None:
    """The newest evaluation of these very weights that lies in the run: that of dqn.evaluate, or the closing one."""
    steps = agent.counters["env_steps"]
    path = run.directory / "evaluation.json"
    found: Any = None
    if path.is_file():
        try:
            found = json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path} is damaged: delete it, or evaluate the run again.") from error
    if _is_evaluation(found) and found.get("env_steps") == steps:
        return found
    closing: Any = run.result.get("evaluation")
    same = run.result.get("parameter_hash") == agent.parameters_hash
    return {**closing, "env_steps": steps} if same and _is_evaluation(closing) else None


def _is_evaluation(found: Any) -> bool:
    """Whether it has the numbers that a card shows."""
    if not isinstance(found, dict) or not isinstance(found.get("episodes"), int):
        return False
    return all(
        isfinite(finite(found.get(name, other))) for name, other in (("mean", nan), ("std", nan), ("epsilon", 0))
    )


def write_results(agent: Agent, run: Record, evaluation: dict[str, Any] | None, folder: Path) -> bool:
    """What the run has left beside its weights: result, numbers by env_steps, evaluation, and, as replay.mp4 and
    replay.gif, the recording of these very weights. Returns whether there is one."""
    if run.result.get("parameter_hash") == agent.parameters_hash:
        write_text(folder / "result.json", json.dumps(run.result, indent=1))
    if run.progress:
        write_text(folder / Table.FILE, "".join(json.dumps(row) + "\n" for row in run.progress))
    if evaluation is not None:
        write_text(folder / "evaluation.json", json.dumps(evaluation, indent=1))
    found = False
    for ending in (".mp4", ".gif"):
        path = run.directory / "video" / f"{agent.counters['env_steps']}-steps{ending}"
        if path.is_file() and not path.is_symlink():
            write_bytes(folder / f"replay{ending}", path.read_bytes())
            found = ending == ".gif"
    return found


def main() -> None:
    verb(pack, USAGE)


if __name__ == "__main__":
    main()
