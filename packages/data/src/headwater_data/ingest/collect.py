"""collect: fetch every source that the config names and write one folder a source.

    fetch (cached, sha256 checked) -> select members -> pack -> source.json, last

A finished source's folder is kept in the work folder, so a killed run goes on with the next source.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .._contracts.manifest import canonical_json, write_atomic
from .._contracts.stage import Run
from ..config import CollectConfig, SourceConfig
from .fetch import fetch, members
from .pack import keep_files, pack_tar, pack_warc

PACKED_AS = {"html": "warc", "text": "tar", "markdown": "tar", "code": "tar", "dialogue": "tar"}
"""Reader -> container; every other reader takes the files as they are."""


def collect(run: Run) -> None:
    """The stage: config.sources -> one folder a source."""
    config: CollectConfig = run.config
    downloads = run.work.parent / "downloads"  # beside the fingerprints: a changed setting fetches nothing twice
    finished = run.work / "sources"
    finished.mkdir(exist_ok=True)

    def one(name: str) -> dict:
        return collect_source(name, config.sources[name], downloads, finished)

    by_source = {}
    with ThreadPoolExecutor(config.workers) as pool:
        for name, description in zip(config.sources, pool.map(one, config.sources), strict=True):
            by_source[name] = description
            run.log(f"{name}: {description['records']} records, {description['payload_bytes'] / 1e6:.1f} MB")
    for name in sorted(by_source):
        shutil.copytree(finished / name, run.out / name, copy_function=os.link)
    run.write_metrics(
        {
            "sources": len(by_source),
            "records": sum(s["records"] for s in by_source.values()),
            "fetched_bytes": sum({s["sha256"]: s["bytes"] for s in by_source.values()}.values()),
            "payload_bytes": sum(s["payload_bytes"] for s in by_source.values()),
            "by_source": {
                name: {key: s[key] for key in ("role", "category", "licence", "version", "records", "payload_bytes")}
                for name, s in by_source.items()
            },
        }
    )


def collect_source(name: str, source: SourceConfig, downloads: Path, finished: Path) -> dict:
    """Fetch and pack one source into `finished/NAME`, unless it is there; returns its source.json.

    Local files are read each time: they may have changed under the same name.

    Raises:
        UserError: the source can't be fetched or read.
    """
    folder = finished / name
    if source.kind == "local" or not (folder / "source.json").exists():
        fetched = fetch(name, source, downloads)
        beside = finished / f".{name}.partial"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        size, digest = 0, hashlib.sha256()

        def counted():
            nonlocal size
            for member in members(name, source, fetched):
                size += len(member.data)
                digest.update(member.path.encode() + b"\0" + member.data)
                yield member

        container = PACKED_AS.get(source.reader, "files")
        if container == "warc":
            records = pack_warc(counted(), fetched.base_url, beside)
        else:
            records = (pack_tar if container == "tar" else keep_files)(counted(), beside)
        description = {
            "name": name,
            "role": source.role,
            "category": source.category,
            "licence": source.licence,
            "language": source.language,
            "kind": source.kind,
            "origin": fetched.origin,
            "version": fetched.version,
            "sha256": fetched.sha256 or digest.hexdigest(),
            "bytes": fetched.bytes or size,
            "base_url": fetched.base_url,
            "reader": source.reader,
            "text_field": source.text_field,
            "records": records,
            "payload_bytes": size,
        }
        write_atomic(beside / "source.json", canonical_json(description))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(beside, folder)
    return json.loads((folder / "source.json").read_text())
