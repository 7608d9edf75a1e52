"""Stage `balance`: instructions -> instructions in which groups stand beside the same words equally often.

Held-out rows are the input's, untouched, so that losses before and after compare. Nothing is made of them, and what is
made never asks what a held-out row asks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from .._contracts.errors import UserError
from .._contracts.manifest import canonical_json, write_atomic
from .._contracts.stage import Run
from ..conversation import identity, prompt_key
from ..instructions import count, read_split, write_split
from ..overlap import ItemIndex
from .config import BalanceConfig
from .counterfactuals import Counterfactuals, names_somebody
from .templates import sets


def run(run: Run) -> None:
    """Write train.jsonl, heldout.jsonl, rejects.jsonl, balance.json and metrics.json."""
    config: BalanceConfig = run.config
    train, heldout = (read_split(run.inputs["instructions"], side) for side in ("train", "heldout"))
    if not train:
        raise UserError("no training row to balance; give instructions with some")
    items = ItemIndex.from_artefact(run.inputs["items"]) if "items" in run.inputs else None
    made = Maker(config, train, heldout, items)
    made.counterfactuals(train)
    made.templates()
    if not made.rows:
        raise UserError("nothing was made: no conversation has a term of the sets; name other sets, or use templates")
    kept = made.rows if config.keep == "made" else [r for r in train if r["id"] not in made.replaced] + made.rows
    after = sorted(kept, key=lambda record: record["id"])
    table = made.table(train, after)
    write_split(run.out, {"train": after, "heldout": heldout}, made.rejects)
    write_atomic(run.out / "balance.json", canonical_json(table))
    run.write_metrics({**count({"train": after, "heldout": heldout}, made.rejects), **made.counts(), "balance": table})
    run.log(f"{len(train)} rows, {len(after)} after; {made.counts()['made']}, {len(made.rejects)} rejects")
    for name, groups in table.items():
        told = ", ".join(f"{group} {n['before']} -> {n['after']}" for group, n in groups.items())
        run.log(f"terms of {name}: {told}")


class Maker:
    """Collects what is made, refuses what must not be, and counts both."""

    def __init__(self, config: BalanceConfig, train: list[dict], heldout: list[dict], items: ItemIndex | None):
        self.config, self.train, self.items = config, train, items
        self.rows: list[dict] = []
        self.rejects: list[dict] = []
        self.replaced: set[str] = set()
        """Ids of conversations in whose place a counterfactual stands."""
        self.terms: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self._swaps = Counterfactuals(config)
        self._ids = {record["id"] for record in train}
        self._asked = {prompt_key(record["messages"]) for record in heldout}

    def counterfactuals(self, train: Iterable[dict]) -> None:
        """Of every conversation that has terms, by the config's method."""
        if self.config.method == "none":
            return
        make = self._swaps.all if self.config.method == "augment" else self._swaps.drawn
        for number, record in enumerate(train):
            found = make(record)
            if found and self.config.named == "keep" and names_somebody(_text(record)):
                self._refuse(record["source"], number, "names somebody, so kept as it is")
                continue
            for made, terms in found:
                if reason := self._reason(made):
                    self._refuse(made["source"], number, reason)
                    continue
                self._keep(made, record)
                self.terms += terms
                self.kinds["counterfactuals"] += 1
                if self.config.method == "substitute":
                    self.replaced.add(record["id"])

    def templates(self) -> None:
        """As the config asks; where one of a set is refused, all of it is, so that its groups stay level."""
        number = 0
        for made in sets(self.config.templates):
            reasons = [self._reason(row) for row in made]
            for row, reason in zip(made, reasons, strict=True):
                if any(reasons):
                    self._refuse(row["source"], number, reason or "another of its set is refused")
                else:
                    stand_in = self.train[int(identity("control", row["id"]), 16) % len(self.train)]
                    self._keep(row, stand_in)
                    self.kinds["templates"] += 1
                number += 1

    def counts(self) -> dict:
        """For metrics.json: rows made by kind, and terms shifted by set."""
        return {"made": dict(sorted(self.kinds.items())), "terms_swapped": dict(sorted(self.terms.items()))}

    def table(self, before: Iterable[dict], after: Iterable[dict]) -> dict:
        """Set -> group -> terms in the training rows before and after, and the group's share of the set's terms."""
        sides = {"before": self._total(before), "after": self._total(after)}
        found: dict[str, dict[str, dict]] = defaultdict(dict)
        for name, terms in self.config.term_sets.items():
            for group in terms.groups:
                row = {side: total[name, group] for side, total in sides.items()}
                of = {side: sum(total[name, other] for other in terms.groups) for side, total in sides.items()}
                shares = {f"share_{side}": round(row[side] / of[side], 4) if of[side] else None for side in row}
                found[name][group] = {**row, **shares}
        return dict(found)

    def _total(self, records: Iterable[dict]) -> Counter[tuple[str, str]]:
        total: Counter[tuple[str, str]] = Counter()
        for record in records:
            total += self._swaps.count(record)
        return total

    def _reason(self, made: dict) -> str | None:
        """Why a row must not be learnt, or None."""
        if made["id"] in self._ids:
            return "duplicate"
        if prompt_key(made["messages"]) in self._asked:
            return "asks what a held-out row asks"
        if self.items is not None and self.items.found_in(_text(made)):
            return "holds a benchmark item"
        return None

    def _keep(self, made: dict, origin: dict) -> None:
        self._ids.add(made["id"])
        repeat = {"id": identity("control", made["id"]), "source": f"{origin['source']}/control"}
        self.rows.append({**origin, **repeat} if self.config.control else made)

    def _refuse(self, source: str, number: int, reason: str) -> None:
        self.rejects.append({"source": source, "row": number, "reason": reason})


def _text(record: dict) -> str:
    return "\n".join(message["content"] for message in record["messages"])
