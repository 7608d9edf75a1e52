"""Small corpora for the tests, written as the artefact that the data package publishes."""

from __future__ import annotations

import ast
import sysconfig
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headwater_tokenizer._contracts import manifest

MODULES = ("argparse", "ast", "difflib", "optparse", "random", "textwrap")


@cache
def real_documents() -> tuple[tuple[str, str, str], ...]:
    """(id, text, source) from this Python's standard library: sources, and their docstrings."""
    found = []
    for name in MODULES:
        text = (Path(sysconfig.get_paths()["stdlib"]) / f"{name}.py").read_text()
        found.append((f"source-{name}", text, "source"))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (doc := ast.get_docstring(node)):
                found.append((f"doc-{name}-{node.name}-{node.lineno}", doc, "docstring"))
    return tuple(found)


def write_corpus(folder: Path, train, heldout=None, rows: int = 64, shards: int = 1) -> Path:
    """Publish (id, text, source) rows as a corpus; `rows` a row group."""
    for split, documents in (("train", list(train)), ("heldout", list(heldout or list(train)[:20]))):
        (folder / split).mkdir(parents=True)
        pieces = shards if split == "train" else 1
        for number in range(pieces):
            part = documents[number::pieces]
            columns = {name: [d[i] for d in part] for i, name in enumerate(("id", "text", "source"))}
            table = pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))
            pq.write_table(table, folder / split / f"part-{number:05d}.parquet", row_group_size=rows)
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    """Write the manifest of a hand-made corpus."""
    manifest.write(folder, manifest.Manifest("corpus", 1, "headwater-data", "0.1.0", "mix", {}))
