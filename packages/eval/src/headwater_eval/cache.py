"""Finished requests are kept: a run that was killed goes on, and no question is asked twice of the same model.

lm-eval's own response cache is not keyed by the model and its request cache not by the data, so both hand out stale
answers. Here a key is all that an answer depends on: the model's identity (hashes of weights, tokenizer and code,
precision, arguments: `models.identify`), the kind of request, the request's own text and generation arguments, and for
samples how often it came before.

Requests are worked on in chunks that depend on the requests alone, not on what is known already nor on who else
works: so an interrupted and resumed run computes in the same batches as an uninterrupted one, two ranks in the same as
one, and all end in the same bytes.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ._contracts.errors import UserError
from .engine import LM
from .lm import decoding
from .parallel import Ranks
from .wrapped import WrappedLM

CHUNK = 256
"""Requests of a chunk, and"""
CHUNK_CHARACTERS = 400_000
"""characters, at most, but for requests that share a context: they stay together."""


class RequestCache:
    """Answers by key, in one SQLite file, which several runs may share.

    Args:
        path: made if need be.
        identity: of the model; answers of others in the file are invisible.

    Raises:
        UserError: the file is no request cache.
    """

    def __init__(self, path: Path, identity: object):
        self._identity = _digest(identity)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        try:
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing, a power cut the newest
            self._db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT) WITHOUT ROWID")
        except sqlite3.DatabaseError as e:
            raise UserError(f"{path}: no request cache ({e}); remove it, or name another file") from None

    def key(self, request: Sequence[Any]) -> str:
        """Of what `_names` makes of a request."""
        return _digest([self._identity, list(request)])

    def find(self, keys: list[str]) -> dict[str, Any]:
        """The answers that are known."""
        found: dict[str, Any] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            query = f"SELECT key, answer FROM answers WHERE key IN ({','.join('?' * len(part))})"
            found |= {key: json.loads(answer) for key, answer in self._run(query, part)}
        return found

    def keep(self, answers: dict[str, Any]) -> None:
        """All or none of them, on disk when this returns."""
        self._run("BEGIN IMMEDIATE")
        for key, answer in answers.items():
            self._run("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(answer)))
        self._run("COMMIT")

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def _run(self, query: str, values: Sequence[str] = ()) -> list[tuple]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as e:
            raise UserError(f"{self._path}: {e}; mend it or remove the file, and run again") from None


class CachedLM(WrappedLM):
    """An lm-eval model, any, whose finished requests are kept and whose work is shared by ranks.

    Args:
        lm: answers what is not known.
        cache: None: nothing is kept. Only the first rank's is used.
        ranks: who shares the work; all of them make the same calls and get all answers.
        progress: told after each round of chunks how many of how many requests are done.
    """

    def __init__(
        self,
        lm: LM,
        cache: RequestCache | None = None,
        ranks: Ranks | None = None,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ):
        super().__init__(lm)
        self._cache, self._ranks, self._progress = cache, ranks or Ranks(), progress

    def loglikelihood(self, requests: list, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As lm-eval's."""
        return [(float(total), bool(greedy)) for total, greedy in self._answers("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = True) -> list[float]:
        """As lm-eval's."""
        return [float(total) for total in self._answers("loglikelihood_rolling", requests)]

    def generate_until(self, requests: list, disable_tqdm: bool = True) -> list[str]:
        """As lm-eval's."""
        return self._answers("generate_until", requests)

    def _answers(self, kind: str, requests: list) -> list[Any]:
        names = _names(kind, [request.args for request in requests])
        distinct = dict(zip(names, requests, strict=True))
        chunks = _chunks(distinct, getattr(self.lm, "shares_beginnings", False))
        known = self._ranks.agree(self._known(distinct))
        answers: dict[tuple, Any] = {}
        missing = []
        for chunk in chunks:
            if all(name in known for name in chunk):
                answers |= {name: known[name] for name in chunk}
            else:
                missing.append(chunk)
        size = self._ranks.size
        for start in range(0, len(missing), size):
            share = missing[start : start + size]
            own = share[self._ranks.rank] if self._ranks.rank < len(share) else []
            made = self._ranks.gather(self._ask(kind, own, distinct))
            fresh = dict(
                zip((name for chunk in share for name in chunk), (a for part in made for a in part), strict=True)
            )
            if self._cache and self._ranks.rank == 0:
                self._cache.keep({self._cache.key(name): answer for name, answer in fresh.items()})
            answers |= fresh
            self._progress(len(answers), len(distinct))
        return [answers[name] for name in names]

    def _known(self, names: Iterable[tuple]) -> dict[tuple, Any]:
        if self._cache is None or self._ranks.rank > 0:
            return {}
        keys = {self._cache.key(name): name for name in names}
        return {keys[key]: answer for key, answer in self._cache.find(list(keys)).items()}

    def _ask(self, kind: str, chunk: list[tuple], requests: dict[tuple, Any]) -> list[Any]:
        if not chunk:
            return []
        if kind == "generate_until" and "torch" in sys.modules:  # for models that draw from the global generator
            sys.modules["torch"].manual_seed(int(_digest(chunk)[:12], 16))
        method = getattr(self.lm, kind)
        quiet = {"disable_tqdm": True} if "disable_tqdm" in inspect.signature(method).parameters else {}
        return method([requests[name] for name in chunk], **quiet)


def _names(kind: str, arguments: list[tuple]) -> list[tuple]:
    """What tells requests apart: kind, text, the rest of the arguments as JSON, and of samples which one it is."""
    names, seen = [], Counter[tuple]()
    for first, *rest in arguments:
        name = (kind, first, json.dumps(rest, sort_keys=True, ensure_ascii=False))
        drawn = kind == "generate_until" and decoding(rest[0], 1).temperature > 0
        names.append((*name, seen[name] if drawn else 0))
        seen[name] += 1
    return names


def _chunks(names: Iterable[tuple], shares_beginnings: bool) -> list[list[tuple]]:
    """All requests, in an order that suits the model: neighbours share beginnings, or are of like length.

    Requests with one context are never parted.
    """
    order = sorted(names) if shares_beginnings else sorted(names, key=lambda name: (-len(name[1]), name))
    chunks: list[list[tuple]] = []
    size = characters = 0
    for at, name in enumerate(order):
        together = at > 0 and order[at - 1][1] == name[1]
        if not chunks or (not together and (size >= CHUNK or characters >= CHUNK_CHARACTERS)):
            chunks.append([])
            size = characters = 0
        chunks[-1].append(name)
        size += 1
        characters += len(name[2]) + (0 if together else len(name[1]))
    return chunks


def _digest(value: object) -> str:
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ).hexdigest()
