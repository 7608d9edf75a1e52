"""Tokenizers and dictionaries of others, written as the artefact that the data package collects."""

from __future__ import annotations

import base64
import io
import tarfile
from pathlib import Path

from headwater_tokenizer._contracts import manifest

BYTES = [bytes([byte]) for byte in range(256)]


def rank_file(tokens) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate(tokens))


def publish(folder: Path, files: dict[str, bytes], source: str = "foreign", packed: bool = False) -> Path:
    """A sources artefact with one source, its files plain or in files.tar.gz."""
    (folder / source).mkdir(parents=True)
    (folder / source / "source.json").write_text("{}")
    if packed:
        with tarfile.open(folder / source / "files.tar.gz", "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        for name, content in files.items():
            (folder / source / name).write_bytes(content)
    manifest.write(folder, manifest.Manifest("sources", 1, "headwater-data", "0.1.0", "collect", {}))
    return folder
