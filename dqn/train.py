"""Train an agent: python -m dqn.train [group=choice] [option=value]."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dqn import __version__
from dqn.config.cli import CONF, check_arguments, front_door, say
from dqn.config.help import help_text
from dqn.config.resume import placed, resume_arguments
from dqn.config.tuned import by_id
from dqn.sweep import sweep_arguments

if TYPE_CHECKING:
    from omegaconf import DictConfig

# PyTorch takes seconds to import. Nothing above does so: what is wrong with a command is said before, and so is a word.


def job(cfg: "DictConfig") -> float:
    """One run; what a sweeper that searches is told is the closing evaluation's mean return."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_cfg = HydraConfig.get()
    directory = Path(hydra_cfg.runtime.output_dir)
    cfg = placed(by_id(cfg), directory)
    if hydra_cfg.mode is not RunMode.MULTIRUN:
        from dqn.run import Host, score, train

        # Errors end here with a sentence, because Hydra would say more.
        return score(front_door(lambda: train(cfg, directory, Host(hydra_cfg.overrides.task))))
    from dqn.sweep import one_of_many

    return one_of_many(cfg, directory)


def start(arguments: list[str]) -> None:
    """Hand the command to Hydra, which composes the configuration and calls `job`, once or for every combination."""
    check_arguments(arguments)
    sys.argv[1:] = sweep_arguments(resume_arguments(arguments))
    if not any(argument.startswith("-") for argument in arguments):
        say(f"dqn {__version__}: loading PyTorch …")
    import hydra

    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()


def main() -> None:
    arguments = sys.argv[1:]
    if "--version" in arguments:
        say(f"dqn {__version__}")
    elif {"-h", "--help"} & {*arguments}:
        say(help_text([a for a in arguments if not a.startswith("-")]))
    else:
        front_door(lambda: start(arguments))


if __name__ == "__main__":
    main()
