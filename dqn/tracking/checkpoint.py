"""Checkpoints: complete or absent, loaded without executing code, costing what is new since the last.

checkpoints/000003-50000.json              the manifest: counters and every file's sha256; its rename commits
checkpoints/000003-50000.safetensors       parameters, optimizer, random streams, the ring's numbers
checkpoints/000003-50000-rows.safetensors  the replay rows written since the checkpoint before
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dqn.types import UsageError

log = logging.getLogger("dqn")
SCHEMA = 5
KEEP = 2  # the newest, and the one before to fall back on


@dataclass
class Snapshot:
    """One checkpoint in memory: `tensors` by name, replay row chunks oldest first, and plain counters.

    `files` describes the chunks' files, which the checkpoints that follow will need too.
    """

    tensors: dict[str, Tensor]
    chunks: list[dict[str, Tensor]]
    counters: dict[str, Any]
    files: list[dict[str, Any]]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Bring a file or a directory's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    temporary = path.with_suffix(".tmp")
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary)
    except SafetensorError as error:  # its word for a full disk
        raise OSError(0, f"cannot be written ({error})", str(path)) from error
    digest = _sha256(temporary)
    _sync(temporary)
    temporary.replace(path)
    return digest


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: temporary file, fsync, rename."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


class Checkpoints:
    """The checkpoints of one run, in `directory`. A chunk of rows is kept while a kept checkpoint needs it."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.chunks: list[dict[str, Any]] = []  # {file, sha256, until: [E]} of the newest checkpoint, oldest first

    def save(
        self, env_steps: int, tensors: dict[str, Tensor], rows: dict[str, Tensor], until: Tensor, ring_rows: int,
        counters: dict[str, Any],
    ) -> None:  # fmt: skip
        """Write one checkpoint; `rows` are those since the last one, they end at row numbers `until` [E]."""
        self.directory.mkdir(parents=True, exist_ok=True)
        last = max((int(path.name[:6]) for path in self.directory.glob("*.json")), default=0)
        name, written = f"{last + 1:06d}-{env_steps}", until.cpu().numpy()
        chunk = f"{name}-rows.safetensors"
        digest = _write_tensors(self.directory / chunk, rows)
        live = [c for c in self.chunks if (np.array(c["until"]) >= written - ring_rows).any()]
        self.chunks = [*live, {"file": chunk, "sha256": digest, "until": written.tolist()}]
        state = f"{name}.safetensors"
        files = {state: _write_tensors(self.directory / state, tensors)}
        manifest = {"schema": SCHEMA, "files": files, "chunks": self.chunks, "counters": counters}
        write_text(self.directory / f"{name}.json", json.dumps(manifest, indent=1))
        self._prune()

    def _prune(self) -> None:
        manifests = sorted(self.directory.glob("*.json"))
        for old in manifests[:-KEEP]:
            old.unlink()
        needed: set[str] = set()
        for path in manifests[-KEEP:]:
            with contextlib.suppress(ValueError, KeyError):
                manifest = json.loads(path.read_text())
                needed |= {*manifest["files"], *(c["file"] for c in manifest["chunks"])}
        for path in self.directory.iterdir():
            if path.suffix != ".json" and path.name not in needed:
                path.unlink()

    def load(self, weights_only: bool = False) -> Snapshot:
        """The newest checkpoint that is whole; a damaged one is named in the log and passed over.

        Errors: UsageError when there is none, or it was written by a newer schema.
        """
        found = False
        for path in sorted(self.directory.glob("*.json"), reverse=True):
            found = True
            try:
                return self._load(path, weights_only)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("Checkpoint %s is damaged (%s): falling back to the one before.", path, error)
        what = "every checkpoint is damaged" if found else "there is no checkpoint"
        raise UsageError(f"Nothing to load in {self.directory}: {what}; give the directory of another run.")

    def _load(self, path: Path, weights_only: bool) -> Snapshot:
        manifest = json.loads(path.read_text())
        if manifest["schema"] != SCHEMA:
            raise UsageError(
                f"{path} has schema {manifest['schema']}, this version reads {SCHEMA}: "
                "load it with the version of dqn that wrote it."
            )
        chunks = [] if weights_only else manifest["chunks"]
        for file, digest in [*manifest["files"].items(), *((c["file"], c["sha256"]) for c in chunks)]:
            if _sha256(self.directory / file) != digest:
                raise ValueError(f"{file} does not match its checksum")
        (state,) = manifest["files"]
        return Snapshot(  # cloned, so aligned as all tensors are: a matrix product rounds by where its input lies
            {name: tensor.clone() for name, tensor in load_file(self.directory / state).items()},
            [load_file(self.directory / c["file"]) for c in chunks],
            manifest["counters"],
            manifest["chunks"],
        )


def pack(parts: dict[str, Any]) -> dict[str, Tensor]:
    """One flat dictionary from the `state()` of every part: name/key → tensor."""
    return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.state().items()}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix`, named without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def unpack(parts: dict[str, Any], tensors: dict[str, Tensor]) -> Iterator[str]:
    """Give every part its tensors back; yields a line about each."""
    for name, owner in parts.items():
        own = part(tensors, f"{name}/")
        owner.load(own)
        size = sum(v.numel() * v.element_size() for v in own.values())
        yield f"{name}: {len(own)} tensors, {size / 1e6:.2f} MB"


def save_batch(path: Path, batch: dict[str, Tensor]) -> None:
    """A batch that broke an update, for a look at it afterwards."""
    save_file({k: v.detach().cpu().contiguous() for k, v in batch.items()}, path)
