"""Take an agent away: python -m dqn.export run=RUN to=FOLDER writes ONNX, or of a language run a stock checkpoint."""

import json
from math import inf
from pathlib import Path
from typing import Any

import torch

from dqn.agent import configuration, load, trained
from dqn.config.cli import names, real, run_config, run_directory, say, text, verb, verb_options, whole
from dqn.device import choose_device
from dqn.errors import UsageError

POLICY = {"tolerance": real(0, inf), "quantize": text, "drop": real(0, 1), "episodes": whole(1)}
LANGUAGE = {"temperature": real(0, inf), "kl": real(0, 1e6), "seed": whole(0), "model": text, "device": text}
OPTIONS = {"run": text, "to": text, "trust": names, **POLICY, **LANGUAGE}
USAGE = (
    "usage: python -m dqn.export run=RUN to=FOLDER [tolerance=1e-5] [quantize=int8] [drop=0.05] [episodes=20] "
    "[trust=[module,…]]; of a run of env=lm: [kl=0.3 | temperature=…] [seed=0] [model=FOLDER] [device=auto]"
)


def export(arguments: list[str]) -> None:
    """The verb."""
    given = verb_options(arguments, USAGE, OPTIONS, "run")
    if not given.get("to"):
        raise UsageError(f"No folder was named; {USAGE}.")
    folder = Path(given["to"])
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"to={folder} is not empty: name a new folder.")
    directory = run_directory("run", given["run"])
    language = "model" in run_config(directory).get("env", {})
    if wrong := {*given} & {*(POLICY if language else LANGUAGE)}:
        whose = "an agent in an environment" if language else "a run of env=lm"
        raise UsageError(f"{', '.join(sorted(wrong))} is for the export of {whose}: leave it out.")
    if language:
        export_language(directory, folder, given)
    else:
        export_policy(directory, folder, given)


def export_policy(directory: Path, folder: Path, given: dict[str, Any]) -> None:
    """ONNX and torch.export, checked against the network."""
    agent = load(directory, trust=given.get("trust", ()))
    agent.export(folder, **{name: given[name] for name in POLICY if name in given})
    say(f"The export is in {folder.resolve()}")
    if (folder / "act.py").is_file():
        say(f"  play:  python {folder / 'act.py'} 10")


def export_language(directory: Path, folder: Path, given: dict[str, Any]) -> None:
    """Writes the checkpoint, reads it again, and prints its KL and score beside those of the guided policy."""
    from dqn.causal_lm import load as load_model
    from dqn.language import Likeliest, Writer, summary, validation

    seed = given.get("seed", 0)
    device, _ = choose_device(given.get("device", "auto"))
    found = trained(directory, device, configuration(directory, given.get("trust", ()), given.get("model")))
    torch.set_num_threads(found.cfg.execution.threads)
    writer = Writer(found.cfg, found.network, device)
    prompts = validation(found.cfg)
    temperature = given.get("temperature", writer.temperature)
    if "kl" in given:
        temperature = writer.temperature_for(given["kl"], prompts, seed, exported=True)
        say(f"temperature {temperature:.4g}, at which the exported model is {given['kl']:g} nats a token from its base")
    writer.export(folder, temperature)
    again = load_model(str(folder), found.cfg.env.dtype, device)
    measured = {
        "base": summary(writer.write(prompts, writer.output(inf), seed=seed)),
        "guided": summary(writer.write(prompts, writer.output(temperature), seed=seed)),
        "exported": summary(writer.write(prompts, Likeliest(again.output, writer.count, writer.top_p), seed=seed)),
    }
    (folder / "measured.json").write_text(json.dumps(measured, indent=1))
    for name, means in measured.items():
        say(f"{name:<9}" + "  ".join(f"{key} {value:.3f}" for key, value in means.items()))
    say(f'The checkpoint is in {folder.resolve()}: AutoModelForCausalLM.from_pretrained("{folder}") loads it.')


def main() -> None:
    verb(export, USAGE)


if __name__ == "__main__":
    main()
