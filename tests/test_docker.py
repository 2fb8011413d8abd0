"""What of the image can be known without building it; `scripts/docker-check` builds and runs it."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_default_base_brings_the_pinned_torch():
    pin = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    base = re.search(r"^ARG BASE_IMAGE=pytorch/pytorch:([\d.]+)-cuda\S+-runtime$", DOCKERFILE, re.MULTILINE)
    assert pin and base and base[1] == pin[1]


def test_every_copied_path_exists_and_reaches_the_builder():
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = [path for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for path in line.split()[:-1]]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / path).exists() for path in copied)
