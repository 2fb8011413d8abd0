"""What `--help` prints: the options as conf/ has them, with the comments that explain them."""

from pathlib import Path

from dqn.config.cli import CONF

EXAMPLES = """\
Train a value-based agent: python -m dqn.train [group=choice] [option=value]

  python -m dqn.train                                       plain DQN on CartPole-v1
  python -m dqn.train algorithm=rainbow env=gym env.id=Acrobot-v1 steps=100000
  python -m dqn.train algorithm=tabular env=chain           the Q-table itself
  python -m dqn.train -m seed=0,1,2 gamma=0.9,0.99          every combination, then a table
  python -m dqn.train resume=runs/NAME steps=200000         continue a run
"""
MORE = """\
  python -m dqn.train --help GROUP     the options of a group: --help env, --help replay
  python -m dqn.train --cfg job        the whole configuration of a command, without running it
  python -m dqn.train --hydra-help     what else Hydra can do"""


def groups() -> dict[str, list[str]]:
    """The choices of each group."""
    folders = sorted(path for path in CONF.iterdir() if path.is_dir())
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


def help_text(asked: list[str]) -> str:
    """The help, or that of the groups that are asked for (`torso`, or `torso=mlp`)."""
    known = groups()
    wanted = [word.partition("=") for word in asked]
    pages = [
        _choice(CONF / group / f"{name}.yaml")
        for group, _, choice in wanted
        for name in known.get(group, [])
        if choice in ("", name)
    ]
    if pages:
        return "\n\n".join(pages)
    width = max(map(len, known))
    listed = "\n".join(f"  {name:<{width}}  {', '.join(choices)}" for name, choices in known.items())
    return (
        f"{EXAMPLES}\nGroups and their choices:\n\n{listed}\n\nOptions beside them:\n\n{_options()}\n\nMore:\n\n{MORE}"
    )


def _choice(path: Path) -> str:
    return f"{path.parent.name}={path.stem}\n{_indented(path.read_text())}"


def _options() -> str:
    """The options of config.yaml that are in no group."""
    text = (CONF / "config.yaml").read_text()
    return _indented(text[text.index("\nseed:") : text.index("\nhydra:")])


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.strip().splitlines())
