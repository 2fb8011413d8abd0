"""Record what an agent does: python -m dqn.record run=RUN episodes=3 writes an mp4 and a GIF."""

import os
from pathlib import Path

from dqn.agent import load
from dqn.config.cli import names, real, say, text, verb, verb_options, whole

OPTIONS = {
    "run": text, "out": text, "episodes": whole(1), "steps": whole(1), "seed": whole(0), "epsilon": real(0, 1),
    "device": text, "trust": names,
}  # fmt: skip
USAGE = (
    "usage: python -m dqn.record run=RUN [episodes=3] [out=RUN/video] [steps=3000, decisions at most] [seed=…] "
    "[epsilon=0] [device=auto] [trust=[module,…] whose parts or environments the run uses]"
)


def record(arguments: list[str]) -> None:
    """Plays greedy episodes and draws the value of each action beside every frame; nothing else of the run changes."""
    given = verb_options(arguments, USAGE, OPTIONS, "run")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pictures are made without a display
    agent = load(given["run"], given.get("device", "auto"), given.get("trust", ()))
    found = agent.record(
        Path(given["out"]) if given.get("out") else None,
        given.get("episodes", 3),
        given.get("seed"),
        given.get("epsilon", 0.0),
        given.get("steps"),
    )
    for number, (score, length) in enumerate(zip(found["returns"], found["lengths"], strict=True)):
        cut = ", cut here" if found["cut"] and number + 1 == len(found["returns"]) else ""
        say(f"episode {number + 1}: return {score:.6g} in {length:,} steps{cut}")
    for path in found["files"]:
        say(f"{path}  {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    verb(record, USAGE)


if __name__ == "__main__":
    main()
