"""Sources come whole, with their provenance, or not at all: a fault is one line that names the setting to change."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from conftest import command, run_stage
from fastwarc.warc import ArchiveIterator, WarcRecordType

from headwater_data._contracts.errors import UserError
from headwater_data._contracts.manifest import manifest_hash, verify
from headwater_data.config import SourceConfig
from headwater_data.ingest.fetch import fetch, members

PAGES = {f"page{i}.html": f"<html><title>{i}</title><body><p>Page {i} of a manual.</p></body></html>" for i in range(3)}


def source(**fields) -> dict:
    return {"category": "prose", "licence": "CC0-1.0", "kind": "local", "reader": "text", **fields}


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir()
    for name, html in PAGES.items():
        (folder / name).write_text(html)
    return folder


def collected(tmp_path: Path, **sources: dict) -> Path:
    out = run_stage("collect", tmp_path, {}, sources=sources)
    verify(out)
    return out


def test_pages_go_through_a_real_warc_and_come_back_as_they_were(tmp_path, pages):
    out = collected(
        tmp_path, web=source(path=str(pages), reader="html", category="internet", base_url="https://x.org/")
    )
    found = {}
    with open(out / "web" / "pages.warc.gz", "rb") as f:
        for record in ArchiveIterator(f, record_types=WarcRecordType.response, verify_digests=True):
            found[record.headers["WARC-Target-URI"]] = record.reader.read().decode()
    assert found == {f"https://x.org/{name}": html for name, html in PAGES.items()}


@pytest.mark.parametrize("path", ["{0}", "{0}/*.html", "{0}/page1.html"])
def test_a_folder_a_glob_and_a_file_are_local_sources(tmp_path, pages, path):
    out = collected(tmp_path, mine=source(path=path.format(pages)))
    description = json.loads((out / "mine" / "source.json").read_text())
    assert description["records"] == (1 if path.endswith("1.html") else 3)
    assert description["licence"] == "CC0-1.0" and len(description["sha256"]) == 64


def test_the_same_files_give_the_same_bytes_and_a_changed_file_is_seen(tmp_path, pages):
    arguments = ("collect", "--params", "params.yaml", "--out", "out")
    entry = source(path="pages", reader="html", category="internet")
    (tmp_path / "params.yaml").write_text(json.dumps({"collect": {"sources": {"mine": entry}}}))
    assert command(*arguments, cwd=tmp_path).returncode == 0
    first = manifest_hash(tmp_path / "out")
    assert command(*arguments, cwd=tmp_path).returncode == 0
    assert manifest_hash(tmp_path / "out") == first
    (pages / "page1.html").write_text("<p>changed</p>")
    assert command(*arguments, cwd=tmp_path).returncode == 0
    assert manifest_hash(tmp_path / "out") != first


def test_a_url_is_fetched_and_described(tmp_path):
    archive = tmp_path / "texts.zip"
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("texts/a.txt", "A text.")
        z.writestr("other/b.txt", "Not wanted.")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    entry = source(kind="url", url=archive.as_uri(), root="texts", sha256=digest, version="3")
    out = collected(tmp_path, books=entry)
    description = json.loads((out / "books" / "source.json").read_text())
    assert (description["sha256"], description["version"], description["records"]) == (digest, "3", 1)
    with tarfile.open(out / "books" / "files.tar.gz") as kept:
        assert kept.getnames() == ["a.txt"]


def refused(tmp_path: Path, **fields) -> str:
    entry = SourceConfig.model_validate(source(**fields))
    with pytest.raises(UserError) as fault:
        fetched = fetch("mine", entry, tmp_path / "cache")
        list(members("mine", entry, fetched))
    assert "\n" not in str(fault.value) and "mine" in str(fault.value)
    return str(fault.value)


def test_a_missing_path_names_its_setting(tmp_path):
    assert "correct sources.mine.path" in refused(tmp_path, path=str(tmp_path / "nowhere"))


def test_an_include_that_matches_nothing_names_its_setting(tmp_path, pages):
    assert "correct sources.mine.include" in refused(tmp_path, path=str(pages), include=["*.xml"])


def test_a_url_that_is_not_there_names_its_setting(tmp_path):
    assert "correct sources.mine.url" in refused(tmp_path, kind="url", url=(tmp_path / "none.zip").as_uri())


def test_another_hash_than_the_pinned_one_is_refused_and_the_file_is_not_kept(tmp_path):
    (tmp_path / "book.txt").write_text("A text.")
    url = (tmp_path / "book.txt").as_uri()
    message = refused(tmp_path, kind="url", url=url, sha256="0" * 64)
    assert "sources.mine.sha256" in message and hashlib.sha256(b"A text.").hexdigest() in message
    assert not list((tmp_path / "cache").rglob("book.txt"))


def test_a_truncated_archive_is_refused_in_one_line(tmp_path):
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        info = tarfile.TarInfo("a.txt")
        info.size = 100_000
        archive.addfile(info, io.BytesIO(bytes(range(250)) * 400))
    (tmp_path / "half.tar.gz").write_bytes(whole.getvalue()[:-200])
    url = (tmp_path / "half.tar.gz").as_uri()
    assert "delete it and run again" in refused(tmp_path, kind="url", url=url)


def test_a_member_that_climbs_out_of_its_archive_is_left_out(tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        for name in ("../../escaped.txt", "good.txt"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"text"))
    entry = SourceConfig.model_validate(source(kind="url", url=(tmp_path / "evil.tar").as_uri()))
    fetched = fetch("mine", entry, tmp_path / "cache")
    assert [m.path for m in members("mine", entry, fetched)] == ["good.txt"]


def test_a_kind_that_this_machine_cannot_serve_names_what_to_change(tmp_path, monkeypatch):
    monkeypatch.setattr("headwater_data.ingest.fetch.shutil.which", lambda tool: None)
    message = refused(tmp_path, kind="deb", package="hello")
    assert "apt-get" in message and "set its kind to local or url" in message


def test_a_package_that_pip_cannot_get_names_what_to_change(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    message = refused(tmp_path, kind="pypi", package="no-such-package", version="1", sha256="0" * 64)
    assert "check the network" in message and "sources.mine" in message


def test_a_sdist_is_read_and_not_built(tmp_path, monkeypatch):
    """pip would run this setup.py, and would refuse the dependency that it names."""
    built = tmp_path / "built"
    setup = f"open({str(built)!r}, 'w')\nfrom setuptools import setup\nsetup(install_requires=['x @ file:///x.zip'])"
    members = {"setup.py": setup, "PKG-INFO": "Metadata-Version: 1.0\nName: rows\nVersion: 1.0\n", "rows.txt": "a row"}
    index = tmp_path / "index"
    index.mkdir()
    with tarfile.open(index / "rows-1.0.tar.gz", "w:gz") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(f"rows-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    sha256 = hashlib.sha256((index / "rows-1.0.tar.gz").read_bytes()).hexdigest()
    entry = source(kind="pypi", package="rows", version="1.0", dist="sdist", sha256=sha256, root="rows-1.0")
    entry |= {"include": ["*.txt"], "role": "items", "reader": "raw"}
    out = collected(tmp_path, mine=entry)
    assert (out / "mine" / "rows.txt").read_text() == "a row"
    assert not built.exists()
    assert "can't download rows==2.0 as sdist (ERROR: no index has" in refused(tmp_path, **{**entry, "version": "2.0"})


def test_killed_it_goes_on_and_gives_the_same_bytes(tmp_path):
    """Killed between sources: what is published later is what an uninterrupted run publishes."""
    entries = {f"s{i}": source(path="stdlib:", reader="code", limit_bytes=3_000_000 + i) for i in range(4)}
    (tmp_path / "params.yaml").write_text(json.dumps({"collect": {"sources": entries, "workers": 1}}))
    line = [sys.executable, "-c", "import sys; from headwater_data.cli import main; sys.exit(main())"]
    line += ["collect", "--params", "params.yaml", "--out", "out"]
    running = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("work/collect/*/sources/s0/source.json")):
        assert running.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "out").exists()
    assert command(*line[3:], cwd=tmp_path).returncode == 0
    assert command(*line[3:-1], "whole", "--work", "elsewhere", cwd=tmp_path).returncode == 0
    assert manifest_hash(tmp_path / "out") == manifest_hash(tmp_path / "whole")


def test_a_gzipped_text_inside_a_package_comes_decompressed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "part.md.gz").write_bytes(gzip.compress(b"# Title\n\nText."))
    entry = SourceConfig.model_validate(source(path=str(tmp_path / "in"), reader="markdown"))
    (member,) = members("mine", entry, fetch("mine", entry, tmp_path / "cache"))
    assert (member.path, member.data) == ("part.md", b"# Title\n\nText.")
