"""Chapters on training: the tokenizer, the plan, and how the loss went."""

from __future__ import annotations

from collections.abc import Sequence

from .chart import Level, Series, lines, moving_average
from .document import Details, Figure, Notice, Section, Table, Text
from .inputs import Json, Lineage
from .tables import dig, metrics_tables
from .units import NONE, count, finite, fixed, percent

X_LABEL = "tokens seen"
TOKENIZERS_PAGE = "tokenizers.html"
"""The comparison's own page, beside the report's."""
_SMOOTHED_OVER = 0.02  # share of the steps in the moving average


def tokenizer(lineage: Lineage) -> Section | None:
    """How well the vocabulary fits the text."""
    if lineage["tokenizer"] is None:
        return None
    m = lineage.metrics("tokenizer")
    section = Section("tokenizer", "Tokenizer")
    ids = [("vocabulary, ids", count(m.get("vocabulary"))), ("learned", count(m.get("learned")))]
    ids += [("named special tokens", count(m.get("named"))), ("reserved ids", count(m.get("reserved")))]
    ids.append(("ids that the training sample never uses", count(m.get("unused_in_sample"))))
    section.blocks.append(Table("Vocabulary", ("", "#ids"), [row for row in ids if row[1] != NONE]))
    rows = []
    for part, told in (("sample", "sample that it was trained on"), ("heldout", "held-out text")):
        whole = m.get(part)
        if isinstance(whole, dict):
            rows.append(_fit(told, whole))
            rows += [_fit(f"{source} (held out)", row) for source, row in (whole.get("by_source") or {}).items()
                     if part == "heldout"]  # fmt: skip
    columns = ("text", "#documents", "#tokens", "#bytes per token", "#tokens per word", "#single-byte tokens")
    if rows:
        section.blocks.append(Table("Compression of text into tokens", columns, rows))
    longest = [t for t in m.get("longest_tokens") or [] if isinstance(t, str)]
    if longest:
        shown = "  ".join(token.replace(" ", "\N{MIDDLE DOT}") for token in longest)
        section.blocks.append(Text(f"Longest tokens (a dot is a space): {shown}"))
    tokens = lineage.metrics("tokens")
    if tokens:
        section.blocks.append(_token_files(tokens))
    return section


def tokenizers(lineage: Lineage) -> Section | None:
    """The tokenizer among others: one row each, of the lineage's own and of the references."""
    artefact = lineage["comparison"]
    found = (artefact.json("comparison.json") or {}).get("tokenizers") if artefact else None
    if not isinstance(found, dict) or not found:
        return None
    of_tokenizers = (r for r in lineage.records if (r.package, r.stage) == ("headwater-tokenizer", "compare"))
    speeds = next((r.measured.get("speeds") for r in of_tokenizers), None) or {}
    section = Section("tokenizers", "Tokenizers compared")
    section.blocks.append(
        Text(
            "The same held-out text by several tokenizers. Bits per byte are those of small models trained with equal "
            f"compute, where such were trained. All measures, pictures and coloured text: {TOKENIZERS_PAGE}, beside "
            "this page."
        )
    )
    columns = ("tokenizer", "#ids", "#bytes per token", "#tokens per word", "#unknown", "#vocabulary used",
               "#Rényi efficiency", "#bits per byte", "#MB/s encoding", "#MB/s decoding")  # fmt: skip
    rows = []
    for name, t in found.items():
        text = dig(t, "heldout") or {}
        of = f"{name} (reference)" if t.get("stage") == "adopt" else name
        speed = dig(speeds, name) or {}
        rows.append(
            (
                of, count(t.get("vocabulary")), fixed(text.get("bytes_per_token"), 2),
                fixed(text.get("tokens_per_word"), 2), percent(text.get("unknown_share")),
                percent(text.get("vocabulary_used_share")), fixed(text.get("renyi_efficiency"), 3),
                fixed(dig(t, "judge", "bits_per_byte"), 3), fixed(speed.get("encode"), 1),
                fixed(speed.get("decode"), 1),
            )
        )  # fmt: skip
    section.blocks.append(Table("Tokenizers on held-out text", columns, rows))
    return section


def _fit(told: str, row: Json) -> tuple[str, ...]:
    fit = (fixed(row.get("bytes_per_token"), 2), fixed(row.get("tokens_per_word"), 2))
    return told, count(row.get("documents")), count(row.get("tokens")), *fit, percent(row.get("single_byte_share"))


def _token_files(m: Json) -> Table:
    rows = []
    for split in ("train", "heldout"):
        row = m.get(split)
        if isinstance(row, dict):
            share = fixed(row.get("bytes_per_token"), 3)
            rows.append((split, count(row.get("documents")), count(row.get("tokens")), count(row.get("bytes")), share))
    return Table("The token dataset", ("split", "#documents", "#tokens", "#bytes", "#bytes per token"), rows)


def plan(lineage: Lineage) -> Section | None:
    """Why the model has the size it has."""
    artefact = lineage["plan"]
    if artefact is None:
        return None
    values = artefact.json("plan.json")
    section = Section("plan", "Plan")
    if not values:
        section.blocks.append(Notice("The plan artefact has no plan.json."))
        return section
    section.blocks.append(Text("Model size and training length, as derived from the compute at hand."))
    section.blocks += metrics_tables("Plan", values)
    return section


def pretraining(lineage: Lineage) -> Section | None:
    """Loss on training and held-out text over the tokens seen."""
    artefact = lineage["checkpoint"]
    if artefact is None:
        return None
    log = artefact.json_lines("log.jsonl")
    section = Section("pretraining", "Pre-training")
    losses, heldout = points_of(log, "loss"), points_of(log, "heldout_loss")
    if not losses:
        section.blocks.append(Notice("The checkpoint has no loss curve (log.jsonl)."))
    else:
        shown = smoothed("training loss", losses)
        told = "Loss in nats per token"
        if len(shown) > 1:
            told += f": single values pale, their moving average over {_SMOOTHED_OVER:.0%} of the run firm"
        shown.append(Series("held-out loss", heldout, marked=True))
        steep = max(y for _, y in losses) > 2.5 * min(y for _, y in losses)
        told += "; logarithmic scale." if steep else "."
        section.blocks.append(
            Figure(told, lambda width: lines(width, "loss curve", shown, X_LABEL, "nats per token", log_y=steep))
        )
    section.blocks += _bits_curve(lineage, log)
    section.blocks.append(
        Text(
            "Held-out figures in this chapter are of a sample that is scored in windows without overlap, to follow the "
            "training; those of the finished models, in the next chapter, let a window see text before it."
        )
    )
    section.blocks += metrics_tables("Training figures", artefact.metrics)
    extra = [_extra(log, key, told, unit) for key, told, unit in _EXTRA]
    if any(extra):
        section.blocks.append(Details("Learning rate and gradient norm", [figure for figure in extra if figure]))
    return section


_EXTRA = (("lr", "Learning rate", ""), ("grad_norm", "Norm of the gradient before clipping", ""))


def parameters(lineage: Lineage) -> int | None:
    """How many parameters the base model's weights file holds."""
    base = lineage["base"]
    return base.weights() if base else None


def untrained_bits(lineage: Lineage) -> float | None:
    """Held-out bits per byte of the model before its first step, as pre-training measured it."""
    artefact = lineage["checkpoint"]
    log = artefact.json_lines("log.jsonl") if artefact else []
    at_start = [r.get("heldout_bits_per_byte") for r in log if r.get("step") == 0]
    return next((bits for bits in at_start if finite(bits)), None)


def smoothed(name: str, points: Sequence[tuple[float, float]]) -> list[Series]:
    """Single values in the background and their moving average before them; few values stay as they are."""
    window = max(1, round(_SMOOTHED_OVER * len(points)))
    if window < 2:
        return [Series(name, points)]
    mean = moving_average([y for _, y in points], window)
    averaged = [(x, y) for (x, _), y in zip(points, mean, strict=True)]
    return [Series(name, points, faint=True), Series(f"{name}, averaged", averaged)]


def _bits_curve(lineage: Lineage, log: Sequence[Json]) -> list[Figure]:
    points = points_of(log, "heldout_bits_per_byte")
    if len(points) < 3:
        return []
    later = points[1:] if points[0][0] == 0 else points  # the untrained model would flatten all the rest
    best = dig(lineage.metrics("compressor"), "heldout", "value")
    name = dig(lineage.metrics("compressor"), "heldout", "compressor") or "best compressor"
    levels = [Level(str(name), best)] if finite(best) else []
    told = "Held-out bits per byte during training" + (
        f"; untrained: {fixed(points[0][1], 2)}." if later is not points else "."
    )
    series = [Series("held-out text", later, marked=True)]
    return [
        Figure(
            told,
            lambda width: lines(width, "held-out bits per byte", series, X_LABEL, "bits per byte", levels, height=220),
        )
    ]


def _extra(log: Sequence[Json], key: str, told: str, unit: str) -> Figure | None:
    points = points_of(log, key)
    if len(points) < 2:
        return None
    return Figure(f"{told}.", lambda width: lines(width, told, [Series(told, points)], X_LABEL, unit, height=180))


def points_of(log: Sequence[Json], key: str) -> list[tuple[float, float]]:
    """(tokens seen, value) wherever the log has the value; rows of validation know the step alone."""
    a_step = next((r["tokens"] / r["step"] for r in reversed(log) if r.get("tokens") and r.get("step")), 1.0)
    found = (row for row in log if finite(row.get(key)))
    return [(float(row.get("tokens", a_step * row.get("step", 0))), float(row[key])) for row in found]
