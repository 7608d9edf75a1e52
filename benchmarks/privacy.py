"""Private data in sentences that others wrote: recall and precision by kind, beside Presidio and dolma.

Input: the 209 sentence templates of presidio-evaluator (Python's package index), ten times, filled by Faker: e-mail
addresses, phone numbers of six countries, card and account numbers, social security numbers, public IP addresses, and
around them names, streets, house numbers, postcodes, dates and years, which are none of these. Neither sentences nor
fillings are ours. A find counts if it overlaps a filling of its kind. Presidio: its pattern recognizers, scores of 0.3
and more, without the language model that would weigh the context.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks.frame import Row, higher_is_better
from benchmarks.peers import measure
from headwater_data.config import SourceConfig
from headwater_data.ingest.fetch import fetch, members

MODULE = "privacy_work"
PACKAGE = SourceConfig(
    category="internet", licence="MIT", kind="pypi", package="presidio-evaluator", version="0.3.2", dist="wheel",
    sha256="57614fe604e52b78e6de25b767c59265886b93bbcdc6c7e43ab2657d3f6302be",
    root="presidio_evaluator/data_generator/raw_data", include=("templates.txt",), role="items", reader="raw",
)  # fmt: skip


def run(quick: bool) -> list[Row]:
    """Rows of recall, precision and sentences a second: a kind and peer each."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "sentences.json"
        (templates,) = members("templates", PACKAGE, fetch("templates", PACKAGE, Path(scratch)))
        path.write_bytes(templates.data)
        made = measure("presidio", MODULE, "fill_templates", path, "1" if quick else "10")
        found = {
            name: measure(peer, MODULE, name, path)
            for name, peer in (("own", "own"), ("presidio", "presidio"), ("dolma", "dolma"))
        }
        labels = json.loads(path.read_text())
    how = f"{made['sentences']} sentences, {made['spans']} labelled spans"
    rows = []
    for peer, version in (("presidio", "2.2.366"), ("dolma", "1.2.1")):
        theirs = figures(labels, found[peer]["spans"])
        ours = figures(labels, found["own"]["spans"])
        for kind in theirs:
            for measured in ("recall", "precision"):
                rows.append(
                    Row(f"{kind}: {measured}", "share", ours[kind][measured], peer, version, theirs[kind][measured],
                        round(ours[kind][measured] / max(theirs[kind][measured], 0.001), 2), None,
                        f"{how}, {ours[kind]['labelled']} of this kind")
                )  # fmt: skip
        rate, peer_rate = (made["sentences"] / found[name]["cpu_s"] for name in ("own", peer))
        rows.append(higher_is_better("sentences", "1/CPU s", rate, peer, version, peer_rate, None, how))
    return rows


def figures(labels: list[dict], found: list[list[list]]) -> dict[str, dict[str, float]]:
    """kind -> labelled, recall, precision; of the kinds that are found at all."""
    result = {}
    for kind in sorted({kind for spans in found for _, _, kind in spans}):
        hits = wanted = right = given = 0
        for label, spans in zip(labels, found, strict=True):
            gold = [s for s in label["spans"] if s[2] == kind]
            mine = [s for s in spans if s[2] == kind]
            hits += sum(any(overlap(g, m) for m in mine) for g in gold)
            right += sum(any(overlap(g, m) for g in gold) for m in mine)
            wanted, given = wanted + len(gold), given + len(mine)
        result[kind] = {
            "labelled": wanted, "recall": round(hits / max(wanted, 1), 4), "precision": round(right / max(given, 1), 4)
        }  # fmt: skip
    return result


def overlap(a: list, b: list) -> bool:
    """Whether two spans (start, end, ...) share a character."""
    return a[0] < b[1] and b[0] < a[1]
