"""Reading a sources artefact: a source's files lie as they are or in one files.tar.gz."""

from __future__ import annotations

import difflib
import tarfile
from pathlib import Path

from headwater_tokenizer._contracts.errors import UserError

TAR = "files.tar.gz"


def list_files(sources: Path, source: str) -> list[str]:
    """Names of a source's files, relative to it, in order.

    Raises:
        UserError: the artefact has no such source.
    """
    names = set(_plain(sources, source))
    if TAR in names:
        names.remove(TAR)
        with _open(_folder(sources, source) / TAR) as archive:
            names |= {member.name for member in archive if member.isfile()}
    return sorted(names)


def read_file(sources: Path, source: str, file: str) -> bytes:
    """One file of a source, by the name that `list_files` gives; nothing is unpacked to disk.

    Raises:
        UserError: no such source or file.
    """
    plain = _plain(sources, source)
    if file in plain:
        return (_folder(sources, source) / file).read_bytes()
    if TAR in plain:
        with _open(_folder(sources, source) / TAR) as archive:
            for member in archive:
                if member.name == file and member.isfile():
                    content = archive.extractfile(member)
                    assert content is not None  # of a regular file it never is
                    return content.read()
    names = list_files(sources, source)
    near = difflib.get_close_matches(file, names, 3, cutoff=0.0)
    raise UserError(f"{sources / source}: no file {file} among its {len(names)}" + (f"; it has {', '.join(near)}"
                    if near else ""))  # fmt: skip


def _folder(sources: Path, source: str) -> Path:
    """The source's folder.

    Raises:
        UserError: there is none of that name.
    """
    names = sorted(path.name for path in sources.iterdir() if path.is_dir())
    if source not in names:
        raise UserError(f"{sources}: no source {source}; it has {', '.join(names) or 'none'}")
    return sources / source


def _plain(sources: Path, source: str) -> list[str]:
    """What lies as it is, but for what the artefact says of the source itself."""
    folder = _folder(sources, source)
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != "source.json")


def _open(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:gz")
    except (tarfile.TarError, OSError, EOFError) as e:
        raise UserError(f"{path}: not readable as tar.gz ({e}); collect the source again") from None
