"""Fetch what a source names: a Python package, a Debian package, a local path, a URL.

The one part of Headwater that uses the network. Packages are fetched by their own clients (pip, apt-get, npm) and
read as archives: nothing is installed, built or imported, and no package's code runs.

Downloads are kept by name in one cache folder and checked against the pinned sha256 each time.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.error
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from .._contracts.errors import UserError
from .._contracts.manifest import sha256_file
from ..config import SourceConfig
from . import standard_library
from .web_guard import PrivateAddress, download

SDIST = f"{__package__}.sdist"
"""Downloads a sdist in a process of its own; to import its client takes a fifth of a second."""
_locks: dict[str, threading.Lock] = {}
_locks_guard = threading.Lock()


class Member(NamedTuple):
    """One file of a fetched source."""

    path: str
    """POSIX path relative to the source's `root`."""
    data: bytes
    modified: int | None
    """Seconds since the epoch as the archive states them; None where only this machine's clock would know."""


@dataclass(frozen=True)
class Fetched:
    """What was fetched, and how its provenance reads in source.json."""

    kind: str
    path: Path | None
    """The archive or file on this machine; None for the parts of the standard library."""
    origin: str
    version: str
    sha256: str
    """Of the file; empty for local sources: their members are hashed as they are read."""
    bytes: int
    base_url: str


def fetch(name: str, source: SourceConfig, cache: Path) -> Fetched:
    """Bring a source to this machine.

    Args:
        name: the source's name, for messages.
        cache: folder where downloads are kept.

    Raises:
        UserError: this machine can't serve the kind, the download failed, or its sha256 is another one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    key = f"{source.kind}:{source.package}:{source.url}"
    with _locks_guard:
        lock = _locks.setdefault(key, threading.Lock())
    if source.kind == "local":
        return _fetch_local(name, source)
    with lock:
        fetched = {"pypi": _fetch_pypi, "deb": _fetch_deb, "npm": _fetch_npm, "url": _fetch_url}[source.kind](
            name, source, cache
        )
    if source.sha256 and fetched.sha256 != source.sha256:
        assert fetched.path is not None
        fetched.path.unlink()
        raise UserError(
            f"source {name}: {fetched.path.name} has sha256 {fetched.sha256}, but sources.{name}.sha256 is "
            f"{source.sha256}; if the new file is wanted, change that setting, else find out who changed it"
        )
    return fetched


def members(name: str, source: SourceConfig, fetched: Fetched) -> Iterator[Member]:
    """The files that `root`, `include` and `exclude` select, up to `limit_bytes`, in an order that repeats.

    Text that the package holds gzip-compressed (`x.md.gz`) comes decompressed, as `x.md`.

    Raises:
        UserError: the archive is truncated or no archive, or nothing in it is selected.
    """
    taken = total = 0
    seen: dict[str, int] = {}
    try:
        for path, data, modified in _walk(source, fetched):
            if path.endswith(".gz") and source.reader in ("html", "text", "markdown", "code"):
                path, data = path.removesuffix(".gz"), gzip.decompress(data)
            if source.limit_bytes and total + len(data) > source.limit_bytes:
                if taken:
                    break
                data = data[: source.limit_bytes]
            taken, total = taken + 1, total + len(data)
            seen[path] = seen.get(path, 0) + 1
            yield Member(path if seen[path] == 1 else f"{path}~{seen[path]}", data, modified)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile) as e:
        raise UserError(
            f"source {name}: {fetched.path} can't be read to its end ({e}); delete it and run again"
        ) from None
    if not taken:
        raise UserError(
            f"source {name}: nothing in {fetched.origin} {fetched.version} matches root {source.root!r} and include "
            f"{list(source.include)}; correct sources.{name}.include"
        )


def _walk(source: SourceConfig, fetched: Fetched) -> Iterator[Member]:
    wanted = _Selection(source)
    path = fetched.path
    if path is None:
        yield from (m for m in _standard_library(source.path or "") if wanted(m.path) is not None)
    elif fetched.kind == "local":
        for file in local_files(source.path or ""):
            relative = wanted(file.relative_to(path).as_posix() if path.is_dir() else file.name)
            if relative is not None:
                yield Member(relative, file.read_bytes(), None)
    elif fetched.kind == "deb":
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(path)], stdout=subprocess.PIPE) as unpacked:
            assert unpacked.stdout is not None
            yield from _tar_members(unpacked.stdout, wanted)
    elif path.name.endswith((".whl", ".zip")):
        yield from _zip_members(path, wanted)
    elif path.name.endswith((".tar.gz", ".tgz", ".tar", ".tar.xz", ".tar.bz2")):
        with open(path, "rb") as f:
            yield from _tar_members(f, wanted)
    else:
        yield Member(path.name, path.read_bytes(), None)


class _Selection:
    """Which members a source wants, and their path below `root`."""

    def __init__(self, source: SourceConfig):
        self.root = PurePosixPath(source.root)
        self.include, self.exclude = source.include, source.exclude

    def __call__(self, path: str) -> str | None:
        inside = PurePosixPath(path.removeprefix("./"))
        if not inside.is_relative_to(self.root):
            return None
        relative = inside.relative_to(self.root).as_posix()
        if not any(fnmatchcase(relative, g) for g in self.include) or ".." in inside.parts:
            return None
        return None if any(fnmatchcase(relative, g) for g in self.exclude) else relative


def _tar_members(stream: IO[bytes], wanted: _Selection) -> Iterator[Member]:
    """Members in archive order, without touching the disk (so none can climb out of a folder)."""
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for info in archive:
            if not info.isfile():
                continue
            relative = wanted(info.name)
            if relative is not None:
                content = archive.extractfile(info)
                assert content is not None
                yield Member(relative, content.read(), int(info.mtime))


def _zip_members(path: Path, wanted: _Selection) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in sorted(archive.infolist(), key=lambda i: i.filename):
            relative = None if info.is_dir() else wanted(info.filename)
            if relative is not None:
                yield Member(relative, archive.read(info), None)


# ---- PyPI ----------------------------------------------------------------------------------------


def _fetch_pypi(name: str, source: SourceConfig, cache: Path) -> Fetched:
    assert source.package and source.version
    folder = cache / "pypi" / f"{source.package}-{source.version}-{source.dist}"
    if not _only_file(folder):
        wanted = f"{source.package}=={source.version}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary", source.package, wanted]  # fmt: skip
        _download_into(
            folder,
            pip if source.dist == "wheel" else [sys.executable, "-m", SDIST, source.package, source.version],
            f"source {name}: can't download {wanted} as {source.dist}",
            f"check the network and pip's index, or change sources.{name} (version, dist, or kind: local with a path)",
        )
    file = _only_file(folder)
    assert file is not None
    origin = f"pypi:{source.package}"
    return Fetched("pypi", file, origin, source.version, *_digest(file), _base_url(source, f"{source.package}.pypi"))


# ---- npm -----------------------------------------------------------------------------------------


def _fetch_npm(name: str, source: SourceConfig, cache: Path) -> Fetched:
    assert source.package and source.version
    if shutil.which("npm") is None:
        raise UserError(
            f"source {name}: kind npm needs npm, which this machine lacks; install it, remove sources.{name}, or set "
            "its kind to local or url and point it at the same files"
        )
    folder = cache / "npm" / f"{source.package.replace('/', '_')}-{source.version}"
    if not _only_file(folder):
        wanted = f"{source.package}@{source.version}"
        _download_into(
            folder, ["npm", "pack", "--silent", wanted], f"source {name}: npm can't download {wanted}",
            f"check the network, or change sources.{name}", from_folder=True,
        )  # fmt: skip
    file = _only_file(folder)
    assert file is not None
    origin = f"npm:{source.package}"
    return Fetched("npm", file, origin, source.version, *_digest(file), _base_url(source, f"{source.package}.npm"))


# ---- Debian --------------------------------------------------------------------------------------


def _fetch_deb(name: str, source: SourceConfig, cache: Path) -> Fetched:
    assert source.package
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UserError(
                f"source {name}: kind deb needs {tool}, which this machine lacks; "
                f"remove sources.{name}, or set its kind to local or url and point it at the same files"
            )
    wanted = source.package + (f"={source.version}" if source.version else "")
    known = _only_file(cache / "deb" / wanted.replace("/", "_")) if source.version else None
    if known is None:
        served = _served_by_apt(name, wanted)
        folder = cache / "deb" / served.removesuffix(".deb")
        if not _only_file(folder):
            hint = f"check the network, or change sources.{name}"
            says = f"source {name}: apt-get can't download {wanted}"
            try:
                _download_into(folder, ["apt-get", "download", "-q", wanted], says, hint, from_folder=True)
            except UserError:  # the lists may be older than the archive
                _apt_update()
                _served_by_apt(name, wanted)
                _download_into(folder, ["apt-get", "download", "-q", wanted], says, hint, from_folder=True)
        known = _only_file(folder)
        assert known is not None
    field = ["dpkg-deb", "--field", str(known), "Version"]
    version = subprocess.run(field, capture_output=True, text=True, check=True).stdout.strip()
    origin = f"deb:{source.package}"
    return Fetched("deb", known, origin, version, *_digest(known), _base_url(source, f"{source.package}.deb"))


def _served_by_apt(name: str, wanted: str) -> str:
    """File name under which the archive serves a package; the lists are fetched if there are none."""
    command = ["apt-get", "download", "--print-uris", wanted]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode or not answer.stdout.strip():
        _apt_update()
        answer = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in answer.stdout.splitlines() if line.startswith("'")]
    if answer.returncode or not lines:
        why = _last_line(answer.stderr)
        raise UserError(
            f"source {name}: apt-get does not offer {wanted} ({why}); drop sources.{name}.version to take what the "
            f"archive serves, check the network, or remove the source"
        )
    return lines[-1].split()[1]


def _apt_update() -> None:
    lock = _locks.setdefault("apt-get update", threading.Lock())
    with lock:
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True)


# ---- local and URL -------------------------------------------------------------------------------


def _fetch_local(name: str, source: SourceConfig) -> Fetched:
    path = source.path or ""
    if path.startswith("stdlib:"):
        return Fetched("local", None, path, standard_library.VERSION, "", 0, _base_url(source, "python.stdlib"))
    if not local_files(path):
        raise UserError(f"source {name}: no file at {path}; correct sources.{name}.path")
    root = Path(path) if Path(path).is_dir() else Path(path).parent if Path(path).is_file() else _glob_root(path)
    version = source.version or "unversioned"
    return Fetched("local", root, f"local:{name}", version, "", 0, _base_url(source, f"{name}.local"))


def local_files(path: str) -> list[Path]:
    """The files of a folder, a single file, or a glob pattern, sorted by path."""
    here = Path(path)
    if here.is_file():
        return [here]
    if here.is_dir():
        return sorted(p for p in here.rglob("*") if p.is_file())
    root = _glob_root(path)
    pattern = path[len(str(root)) :].lstrip("/") if str(root) != "." else path
    return sorted(p for p in root.glob(pattern) if p.is_file()) if pattern else []


def _glob_root(pattern: str) -> Path:
    parts = Path(pattern).parts
    fixed = [i for i, part in enumerate(parts) if any(c in part for c in "*?[")]
    return Path(*parts[: fixed[0]]) if fixed else Path(pattern).parent


def _standard_library(token: str) -> Iterable[Member]:
    parts = {
        "stdlib:": standard_library.modules,
        "stdlib:docstrings": standard_library.docstrings,
        "stdlib:topics": standard_library.topics,
        "stdlib:pydoc": standard_library.pydoc_pages,
    }
    return (Member(path, data, None) for path, data in parts[token]())


def _fetch_url(name: str, source: SourceConfig, cache: Path) -> Fetched:
    import fsspec

    assert source.url
    folder = cache / "url" / hashlib.sha256(source.url.encode()).hexdigest()[:16]
    file = _only_file(folder)
    if file is None:
        beside = _fresh_folder(folder)
        target = beside / (PurePosixPath(source.url.split("?")[0]).name or "download")
        try:
            if source.url.startswith(("http://", "https://")) and not source.allow_private:
                download(source.url, target, source.max_bytes)
            else:
                with fsspec.open(source.url, "rb") as remote, open(target, "wb") as local:
                    shutil.copyfileobj(remote, local, 1 << 20)
        except Exception as e:  # fsspec's file systems raise whatever their clients raise
            shutil.rmtree(beside, ignore_errors=True)
            private = e.reason if isinstance(e, urllib.error.URLError) else e
            if isinstance(private, PrivateAddress):
                raise UserError(
                    f"source {name}: {source.url} leads to a private address ({private}); set "
                    f"sources.{name}.allow_private if it is meant to"
                ) from None
            why = f"{type(e).__name__}: {_last_line(str(e))}"
            raise UserError(
                f"source {name}: {source.url} can't be read ({why}); correct sources.{name}.url, install the "
                f"file system it needs (s3fs for s3://, huggingface_hub for hf://), or check the network"
            ) from None
        os.replace(beside, folder)
        file = _only_file(folder)
        assert file is not None
    base = _base_url(source, f"{name}.url")
    return Fetched("url", file, source.url, source.version or "unversioned", *_digest(file), base)


# ---- shared --------------------------------------------------------------------------------------


def _base_url(source: SourceConfig, host: str) -> str:
    """Where the source's pages are said to lie; `.invalid` (RFC 2606) where the config names no public address."""
    return source.base_url or f"https://{host}.invalid/"


def _digest(file: Path) -> tuple[str, int]:
    return sha256_file(file), file.stat().st_size


def _only_file(folder: Path) -> Path | None:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return files[0] if files else None


def _fresh_folder(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}.", dir=folder.parent))


def _download_into(folder: Path, command: list[str], says: str, hint: str, from_folder: bool = False) -> None:
    """Run a download client into a fresh folder beside `folder`, then rename: a killed download leaves no half."""
    beside = _fresh_folder(folder)
    try:
        where = [] if from_folder else ["-d", str(beside.resolve())]
        done = subprocess.run([*command, *where], cwd=beside, capture_output=True, text=True)
        if done.returncode or not _only_file(beside):
            raise UserError(f"{says} ({_last_line(done.stderr)}); {hint}")
        os.chmod(beside, 0o755)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _last_line(text: str) -> str:
    """The line in which a client says why it failed: its last error, else the last line that is no warning."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.upper().startswith(("ERROR", "E:"))]
    others = [line for line in lines if not line.upper().startswith(("WARNING", "W:"))]
    return (errors or others or ["no reason given"])[-1][:200]
