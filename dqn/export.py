"""Take a guided language model away as a stock checkpoint: python -m dqn.export run=RUN to=FOLDER."""

import json
import sys
from math import inf
from pathlib import Path

import torch

from dqn.agent import configuration, trained
from dqn.causal_lm import load
from dqn.config.cli import front_door, names, real, run_directory, say, text, verb_options, whole
from dqn.device import choose_device
from dqn.errors import UsageError
from dqn.language import Likeliest, Writer, summary, validation

OPTIONS = {
    "run": text, "to": text, "temperature": real(0, inf), "kl": real(0, 1e6), "seed": whole(0), "model": text,
    "device": text, "trust": names,
}  # fmt: skip
USAGE = (
    "usage: python -m dqn.export run=RUN to=FOLDER [kl=0.3 | temperature=…] [seed=0] [model=FOLDER] [device=auto] "
    "[trust=[module,…]]"
)


def export() -> None:
    """Writes the checkpoint, reads it again, and prints its KL and score beside those of the guided policy."""
    if {"-h", "--help"} & {*sys.argv[1:]}:
        say(USAGE)
        return
    given = verb_options(sys.argv[1:], USAGE, OPTIONS, "run")
    if not given.get("to"):
        raise UsageError(f"No folder was named; {USAGE}.")
    folder, seed = Path(given["to"]), given.get("seed", 0)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"to={folder} is not empty: name a new folder.")
    directory = run_directory("run", given["run"])
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
    again = load(str(folder), found.cfg.env.dtype, device)
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
    front_door(export)


if __name__ == "__main__":
    main()
