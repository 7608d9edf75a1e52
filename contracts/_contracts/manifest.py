"""The artefact manifest: what every folder that crosses a package boundary says of itself.

An artefact is a folder with a `manifest.json` that is written last. It names the kind and schema
version, the producing package, stage and resolved config, the manifests it was made from (by hash),
and the size and sha256 of every other file in the folder. It holds no path, host or time: the same
inputs and config give the same bytes. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .errors import UserError

NAME = "manifest.json"

# kind -> schema version. contracts/schemas/KIND.md describes each. Raise the number with the page.
SCHEMAS = {
    "sources": 1,
    "items": 2,
    "documents": 1,
    "classifier": 1,
    "corpus": 1,
    "card": 1,
    "tokenizer": 1,
    "tokens": 1,
    "comparison": 1,
    "plan": 1,
    "checkpoint": 2,
    "export": 1,
    "instructions": 2,
    "preferences": 2,
    "completions": 1,
    "labelsheet": 1,
    "labels": 1,
    "unseen": 1,
    "outcome": 1,
    "results": 2,
    "report": 1,
    "reviewsheet": 1,
    "review": 1,
    "modelcard": 1,
}


class ArtefactError(UserError):
    """An artefact is missing, incomplete, changed, of another kind or of another schema version."""


@dataclass(frozen=True)
class Manifest:
    """The content of one manifest.json."""

    kind: str
    schema: int
    package: str
    version: str
    stage: str
    config: dict
    """The stage's resolved config."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Input name -> sha256 of that input's manifest.json."""
    files: dict[str, dict] = field(default_factory=dict)
    """Path relative to the folder -> {"bytes": int, "sha256": hex}."""


def canonical_json(value: object) -> str:
    """JSON with sorted keys: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def list_files(folder: Path) -> list[str]:
    """Every file of an artefact but its manifest, as sorted relative POSIX paths; hidden ones too, since a
    distributed checkpoint keeps its index in `.metadata`."""
    found = (p for p in folder.rglob("*") if p.is_file() and p != folder / NAME)
    return sorted(p.relative_to(folder).as_posix() for p in found)


def manifest_hash(folder: Path) -> str:
    """The artefact's identity: sha256 of its manifest.json."""
    path = Path(folder) / NAME
    if not path.is_file():
        raise ArtefactError(f"{folder}: no {NAME}, so this is no complete artefact; run the stage that makes it")
    return sha256_file(path)


def write(folder: Path, manifest: Manifest) -> Manifest:
    """Hash every file in `folder`, fsync them, and write manifest.json last and atomically."""
    files = {}
    for name in list_files(folder):
        path = folder / name
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        fsync(path)
    whole = Manifest(**{**asdict(manifest), "files": files})
    write_atomic(folder / NAME, canonical_json(asdict(whole)))
    return whole


def read(folder: Path, kinds: tuple[str, ...] = ()) -> Manifest:
    """Read a manifest and check kind and schema version, not the files.

    Raises:
        ArtefactError: no manifest, not a manifest, another kind, another schema version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtefactError(f"{folder}: no such folder; run the stage that makes it, or correct the path")
    manifest_hash(folder)
    try:
        manifest = _from_json((folder / NAME).read_text())
    except (ValueError, TypeError, KeyError) as e:
        raise ArtefactError(f"{folder / NAME}: not a readable manifest ({e}); make the artefact again") from None
    if kinds and manifest.kind not in kinds:
        raise ArtefactError(f"{folder}: holds {manifest.kind}, but {' or '.join(kinds)} is needed here")
    known = SCHEMAS.get(manifest.kind)
    if known is None:
        raise ArtefactError(f"{folder}: {manifest.kind} is no kind that this package knows; install a newer one")
    if manifest.schema != known:
        raise ArtefactError(
            f"{folder}: {manifest.kind} of schema version {manifest.schema}, but this package reads {known}; "
            f"make it again with the installed packages, or install the {manifest.package} that made it"
        )
    return manifest


def verify(folder: Path, kinds: tuple[str, ...] = ()) -> Manifest:
    """`read`, then check every file's presence, size and sha256.

    Raises:
        ArtefactError: naming the first file that is missing, changed or not in the manifest.
    """
    folder = Path(folder)
    manifest = read(folder, kinds)
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ArtefactError(f"{path}: missing, though the manifest lists it; make {folder} again")
        if path.stat().st_size != expected["bytes"] or sha256_file(path) != expected["sha256"]:
            raise ArtefactError(
                f"{path}: changed since it was made (its bytes do not match the manifest); "
                f"delete {folder} and make it again, or restore it from a good copy"
            )
    extra = sorted(set(list_files(folder)) - set(manifest.files))
    extra = [name for name in extra if not Path(name).name.startswith(".")]  # .DS_Store, .nfs0001: not ours, no harm
    if extra:
        raise ArtefactError(f"{folder / extra[0]}: not in the manifest; remove it, or make {folder} again")
    return manifest


def _from_json(text: str) -> Manifest:
    manifest = Manifest(**json.loads(text))
    strings = (manifest.kind, manifest.package, manifest.version, manifest.stage)
    if not all(isinstance(s, str) for s in strings) or not isinstance(manifest.inputs, dict):
        raise TypeError("a field has another type")
    for name, entry in dict(manifest.files).items():
        if not (isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str)) or ".." in Path(name).parts:
            raise ValueError(f"bad entry for file {name}")
    return manifest


def fsync(path: Path) -> None:
    """Flush a file or folder to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, text: str | bytes) -> None:
    """Write beside, fsync, rename: the file is there whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(text.encode() if isinstance(text, str) else text)
        fsync(beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    fsync(path.parent)
