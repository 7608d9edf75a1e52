"""What became of the mixture, wanted against realised: the content of mixture.json."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .config import TasksConfig

if TYPE_CHECKING:
    from .compose import Member

CONVERSATION = "conversation"
"""Kind and cluster of what comes as it is."""


def realised(members: Sequence[Member], config: TasksConfig, dropped: Counter[str], unseen: Sequence[dict]) -> dict:
    """Rows and shares of the training side by member, source, cluster, kind, options and phrasing.

    `wanted` of a kind follows from the shares that each task allows; a phrasing's share is wanted to be as large as any
    other's of its task.
    """
    total = sum(len(m.rows) for m in members)
    suite_of = {name: suite for suite, of in config.mixture.suites.items() for name in of.members}
    by: dict[str, dict[str, Counter]] = {name: defaultdict(Counter) for name in ("source", "cluster", "kind")}
    options: Counter = Counter()
    shots: Counter = Counter()
    phrasings: dict[str, Counter] = defaultdict(Counter)
    for member in members:
        _add_wanted(member, by["cluster"], by["kind"])
        for row in member.rows:
            template = row.get("template")
            by["source"][row["source"]]["rows"] += 1
            by["cluster"][row.get("cluster", CONVERSATION)]["rows"] += 1
            by["kind"][template["kind"] if template else CONVERSATION]["rows"] += 1
            if template:
                options["listed" if template["options"] else "not listed"] += 1
                shots[str(len(template["exemplars"]))] += 1
                way = "inversion" if template["kind"] == "inversion" else "phrasing"
                phrasings[member.name][f"{way} {template['phrasing']}"] += 1
    return {
        "wanted": sum(m.wanted for m in members),
        "rows": total,
        "by_member": {
            m.name: {
                "cluster": m.task.cluster if m.task else None,
                "suite": suite_of.get(m.name),
                "available": len(m.train),
                "wanted": m.wanted,
                "rows": len(m.rows),
                "share": _share(len(m.rows), total),
                "epochs": _share(len(m.rows), len(m.train)),
                "heldout": len(m.heldout_rows),
            }
            for m in sorted(members, key=lambda m: m.name)
        },
        "by_source": {name: _rows(n, total) for name, n in sorted(by["source"].items())},
        "by_cluster": {name: _wanted(n, total) for name, n in sorted(by["cluster"].items())},
        "by_kind": {name: _wanted(n, total) for name, n in sorted(by["kind"].items())},
        "by_options": dict(sorted(options.items())),
        "by_shots": dict(sorted(shots.items(), key=lambda of: int(of[0]))),
        "by_phrasing": {name: dict(sorted(n.items())) for name, n in sorted(phrasings.items())},
        "dropped": dict(sorted(dropped.items())),
        "unseen": dict(sorted(Counter(r["task"] for r in unseen).items())),
        "heldout_clusters": sorted(config.heldout_clusters),
    }


def _add_wanted(member: Member, clusters: dict[str, Counter], kinds: dict[str, Counter]) -> None:
    clusters[member.task.cluster if member.task else CONVERSATION]["wanted"] += member.wanted
    allowed = member.templates.kinds if member.templates else {CONVERSATION: 1.0}
    for kind, share in allowed.items():
        kinds[kind]["wanted"] += share * member.wanted  # type: ignore[assignment]


def _rows(n: Counter, total: int) -> dict:
    return {"rows": n["rows"], "share": _share(n["rows"], total)}


def _wanted(n: Counter, total: int) -> dict:
    return {"wanted": round(n["wanted"], 1), **_rows(n, total)}


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
