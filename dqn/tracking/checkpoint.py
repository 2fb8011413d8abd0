"""Checkpoints: complete or absent, loaded without executing code, costing what is new since the last.

checkpoints/000003-50000.json              the manifest: counters and every file's sha256, with one of its own; its
                                           rename commits the checkpoint
checkpoints/000003-50000.safetensors       parameters, optimizer, random streams, the ring's numbers
checkpoints/000003-50000-rows.safetensors  the replay rows written since the checkpoint before

Only files with such names are read, counted and deleted: whatever else lies in the directory is left alone.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dqn.errors import UsageError

log = logging.getLogger("dqn")
SCHEMA = 6
KEEP = 2  # the newest, and the one before to fall back on
MANIFEST = re.compile(r"\d{6}-\d+\.json")
FILE = re.compile(r"\d{6}-\d+(-rows)?\.(json|safetensors)(\.tmp)?|\d{6}-\d+(-rows)?\.tmp")


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
    """Bring a file or a directory's entries to the disk; Windows opens no directories."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of the disk name the file, which a full disk's do not."""
    try:
        yield
    except SafetensorError as error:  # its word for a full disk
        raise OSError(0, f"cannot be written ({error})", str(path)) from error
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, f"cannot be written ({error.strerror})", str(path)) from error


def _alone(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, contiguous and in memory that no other one shares, as safetensors wants it."""
    mine = tensor.detach().cpu().contiguous()
    return mine if mine.untyped_storage().nbytes() == mine.nbytes else mine.clone()


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    temporary = path.with_suffix(".tmp")
    with _naming(path):
        temporary.unlink(missing_ok=True)  # or a link that lies there would be followed
        save_file({name: _alone(tensor) for name, tensor in tensors.items()}, temporary)
        digest = _sha256(temporary)
        _sync(temporary)
        temporary.replace(path)
    return digest


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing: a new temporary file, fsync, rename. No link is followed."""
    temporary = path.with_name(path.name + ".tmp")
    with _naming(path):
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)


def _rendered(manifest: dict[str, Any]) -> str:
    """The manifest's text, with the checksum of all the rest in it. A file that says anything else is damaged."""
    body = json.dumps(manifest, indent=1)
    return json.dumps({**manifest, "sha256": hashlib.sha256(body.encode()).hexdigest()}, indent=1)


class Checkpoints:
    """The checkpoints of one run, in `directory`. A chunk of rows is kept while a kept checkpoint needs it."""

    def __init__(self, directory: Path):
        self.directory = directory
        # {file, sha256, size, until: [E]} of the newest checkpoint, oldest first
        self.chunks: list[dict[str, Any]] = []

    def complete(self) -> bool:
        """Whether the chunks that the next checkpoint shares with the last one still lie there. If not it is said, and
        the next checkpoint needs all rows again."""
        for chunk in self.chunks:
            path = self.directory / chunk["file"]
            if not path.is_file() or path.stat().st_size != chunk["size"]:
                log.warning("%s is lost or damaged: the next checkpoint writes the whole replay memory again.", path)
                self.chunks = []
                return False
        return True

    def save(
        self,
        env_steps: int,
        tensors: dict[str, Tensor],
        rows: dict[str, Tensor],
        until: Tensor,
        ring_rows: int,
        counters: dict[str, Any],
    ) -> None:
        """Write one checkpoint.

        `rows` are those since the last one, or all where `complete` said no; they end at row numbers `until` [E].
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        last = max((int(path.name[:6]) for path in self._manifests()), default=0)
        name, written = f"{last + 1:06d}-{env_steps}", until.cpu().numpy()
        chunk = self.directory / f"{name}-rows.safetensors"
        digest = _write_tensors(chunk, rows)
        live = [c for c in self.chunks if (np.array(c["until"]) >= written - ring_rows).any()]
        new = {"file": chunk.name, "sha256": digest, "size": chunk.stat().st_size, "until": written.tolist()}
        self.chunks = [*live, new]
        state = f"{name}.safetensors"
        files = {state: _write_tensors(self.directory / state, tensors)}
        manifest = {"schema": SCHEMA, "files": files, "chunks": self.chunks, "counters": counters}
        write_text(self.directory / f"{name}.json", _rendered(manifest))
        self._prune()

    def _manifests(self) -> list[Path]:
        """The manifests, oldest first."""
        return sorted(path for path in self.directory.glob("*.json") if MANIFEST.fullmatch(path.name))

    def _prune(self) -> None:
        """Delete the checkpoints before the last KEEP, and the files that none of those needs."""
        whole: dict[Path, set[str]] = {}
        for path in self._manifests():
            with contextlib.suppress(UsageError, *DAMAGED):
                manifest = _read(path)
                whole[path] = {path.name, *manifest["files"], *(c["file"] for c in manifest["chunks"])}
        kept = [*whole][-KEEP:]
        needed = set[str]().union(*(whole[path] for path in kept))
        for path in self.directory.iterdir():
            damaged = MANIFEST.fullmatch(path.name) is not None and path not in whole
            if FILE.fullmatch(path.name) and path.name not in needed and not damaged and not path.is_dir():
                path.unlink()

    def load(self, weights_only: bool = False) -> Snapshot:
        """The newest checkpoint that is whole; a damaged one is named in the log and passed over.

        Errors: UsageError when there is none, or it was written by another version's schema.
        """
        found = self._manifests()
        for path in reversed(found):
            try:
                return self._load(path, weights_only)
            except DAMAGED as error:
                log.warning("Checkpoint %s is damaged (%s): falling back to the one before.", path, _words(error))
        if not found:
            raise UsageError(f"There is no checkpoint in {self.directory}: give the directory of another run.")
        raise UsageError(f"Every checkpoint in {self.directory} is damaged: {self._what_works(weights_only)}.")

    def _what_works(self, weights_only: bool) -> str:
        """What can still be done where no checkpoint is whole."""
        if not weights_only:
            with contextlib.suppress(UsageError):
                self.load(weights_only=True)
                return (
                    "a resume needs the replay memory, and rows of it are lost; the network is whole, so evaluate it, "
                    "act with it (dqn.load), or begin a new run from it"
                )
        return "give the directory of another run"

    def _load(self, path: Path, weights_only: bool) -> Snapshot:
        manifest = _read(path)
        chunks = [] if weights_only else manifest["chunks"]
        for file, digest in [*manifest["files"].items(), *((c["file"], c["sha256"]) for c in chunks)]:
            if not FILE.fullmatch(file):
                raise ValueError(f"it names {file}")
            if _sha256(self.directory / file) != digest:
                raise ValueError(f"{file} does not match its checksum")
        (state,) = manifest["files"]
        return Snapshot(
            # Copies are aligned as all tensors are, and a matrix product rounds by where its input lies.
            {name: tensor.clone() for name, tensor in load_file(self.directory / state).items()},
            [load_file(self.directory / c["file"]) for c in chunks],
            manifest["counters"],
            manifest["chunks"],
        )


# What a damaged or crafted file can raise in here; nothing is made of it but numbers.
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError, SafetensorError)


def _read(path: Path) -> dict[str, Any]:
    """A manifest that is whole. Errors: one of DAMAGED; UsageError for another schema."""
    text = path.read_bytes().decode("utf-8")
    manifest = json.loads(text)
    schema = manifest.get("schema")
    if manifest.pop("sha256", None) is None and schema != SCHEMA:
        raise UsageError(
            f"{path} has schema {schema}, this version reads {SCHEMA}: load it with the version of dqn that wrote it."
        )
    if text != _rendered(manifest):
        raise ValueError("the manifest does not match its checksum")
    if schema != SCHEMA:
        raise UsageError(
            f"{path} has schema {schema}, this version reads {SCHEMA}: load it with the version of dqn that wrote it."
        )
    return manifest


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def save_batch(path: Path, batch: dict[str, Tensor]) -> None:
    """A batch that broke an update, for a look at it afterwards."""
    _write_tensors(path, batch)
