"""The isoflop command: a grid of small runs of equal compute, the scaling law they give, and how good it proved.

    headwater-model isoflop runs/isoflop --tokens TOKENS --tokenizer TOKENIZER --budgets 3e12 1e13 3e13
    headwater-model isoflop runs/isoflop --check artefacts/checkpoint

Sizes stand around the one that 20 tokens a parameter give; the runs of a budget cost the same to one step. Written
into the study's folder: points.csv, fit.json (with the prediction), isoflop.html, and checks.jsonl later.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from math import exp, log
from pathlib import Path
from typing import Any

from .._contracts import manifest as artefacts
from .._contracts.config import override, parse
from .._contracts.errors import UsageError, UserError
from ..config import ModelConfig, PlanConfig
from ..facts import read_facts
from ..plan import make
from ..planning import scaling
from ..planning.tables import short
from . import trial
from .chart import Series, chart, page
from .fit import Fit, Point, fit

NEXT = 3.0
"""Without `--predict`, the prediction is for this many times the largest budget."""


def command(args: argparse.Namespace) -> None:
    """Run, fit, predict; or check a prediction."""
    if args.check:
        for folder in args.check:
            print(check(args.study, folder))
        return
    if not (args.tokens and args.tokenizer and args.budgets):
        raise UsageError("--tokens, --tokenizer and --budgets are needed for a grid; --check for what it predicted")
    sets = override({}, args.set)
    if unknown := sorted(set(sets) - {"plan", "pretrain"}):
        raise UsageError(f"--set {unknown[0]}: write plan.KEY or pretrain.KEY")
    about = {
        "budgets": sorted(args.budgets),
        "sizes": args.sizes,
        "spread": args.spread,
        "ratio": args.ratio,
        "set": sets,
    }
    trial.begin(args.study, "isoflop", {"tokens": args.tokens, "tokenizer": args.tokenizer}, about)
    trials = distinct(grid(about, sets.get("plan", {}), sets.get("pretrain", {})), args.tokens)
    if args.queue:
        for one in trial.queue(args.study, trials):
            print(f"headwater-model trial {args.study} {one.name}")
        return
    results = trial.run_all(args.study, trials, args.workers, print)
    points = to_points(results)
    found = fit(points, args.draws)
    predicted = predict(found, args.predict or NEXT * max(args.budgets))
    write(args.study, found, results, predicted)
    print(report(found, predicted))


def grid(about: dict[str, Any], plan: dict, pretrain: dict) -> list[trial.Trial]:
    """Trials of each of `budgets` at `sizes` sizes from 1/spread to spread times that of `ratio` tokens a parameter."""
    found = []
    for budget in about["budgets"]:
        middle = scaling.by_ratio(budget, about["ratio"]).parameters
        for number in range(about["sizes"]):
            size = middle * about["spread"] ** (2 * number / (about["sizes"] - 1) - 1)
            section = {
                **plan,
                "budget": {"flops": budget},
                "tokens_per_parameter": budget / 6 / size**2,
                "max_epochs": 1e9,  # what repetition costs is part of what is measured
            }
            name = f"{budget:.3g}-{number + 1}"
            found.append(trial.Trial(name, section, pretrain, {"budget": budget}))
    return found


def distinct(trials: Sequence[trial.Trial], tokens: Path) -> list[trial.Trial]:
    """Trials without those whose size comes out as the shape of one before: heads and widths are whole."""
    facts = read_facts(tokens)
    found: dict[tuple[float, str], trial.Trial] = {}
    for one in trials:
        plan = make(parse(PlanConfig, one.plan, "plan"), facts)
        found.setdefault((one.labels["budget"], artefacts.canonical_json(plan["model"])), one)
    return list(found.values())


def to_points(results: Sequence[trial.Result]) -> list[Point]:
    """The runs as points; failed ones are left out."""
    return [
        Point(one.trial.labels["budget"], one.metrics["matrix_parameters"], one.metrics["tokens"], one.loss)
        for one in results
        if not one.failed
    ]


def predict(found: Fit, flops: float) -> dict[str, Any]:
    """The optimal size, tokens and loss for a larger budget, with intervals of 90%."""
    size = found.optimum(flops)
    tokens = flops / 6 / size.value
    return {
        "flops": flops,
        "parameters": asdict(size),
        "tokens": tokens,
        "loss": asdict(found.loss(size.value, tokens)),
    }


def check(study: Path, checkpoint: Path) -> str:
    """What the law says of a run that has been made since, beside what it gave; kept in checks.jsonl.

    Raises:
        UserError: no fit in the study, no checkpoint of this package.
    """
    try:
        raw = json.loads((study / "fit.json").read_text())
    except (OSError, ValueError) as e:
        raise UserError(f"{study / 'fit.json'}: no readable fit ({e}); run the study first") from None
    found = fit([Point(**p) for p in raw["points"]], raw["draws"])
    artefacts.verify(checkpoint, ("checkpoint",))
    metrics = json.loads((checkpoint / "metrics.json").read_text())
    model = ModelConfig(**json.loads((checkpoint / "run.json").read_text())["model"])
    tokens, loss = metrics["tokens"], metrics["heldout_loss"]
    said = found.loss(model.matrix_parameters, tokens)
    kept = said.low <= loss <= said.high
    row = {
        "checkpoint": artefacts.manifest_hash(checkpoint),
        "parameters": model.matrix_parameters,
        "tokens": tokens,
        "predicted": asdict(said),
        "loss": loss,
        "error": said.value / loss - 1,
        "inside": kept,
    }
    path = study / "checks.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    text = json.dumps(row, sort_keys=True)
    if text not in lines:
        artefacts.write_atomic(path, "\n".join([*lines, text]) + "\n")
    return (
        f"{short(model.matrix_parameters)} parameters, {short(tokens)} tokens: predicted {said.value:.4f} "
        f"[{said.low:.4f}, {said.high:.4f}], was {loss:.4f}: {row['error']:+.2%}, {'inside' if kept else 'outside'}"
    )


def write(study: Path, found: Fit, results: Sequence[trial.Result], predicted: dict[str, Any]) -> None:
    """points.csv, fit.json and isoflop.html."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["budget", "parameters", "tokens", "flops", "heldout_loss", "heldout_bits_per_byte", "failed"])
    for one in results:
        keys = ("matrix_parameters", "tokens", "flops", "heldout_loss", "heldout_bits_per_byte")
        writer.writerow([one.trial.labels["budget"], *(one.metrics.get(key, "") for key in keys), one.failed])
    artefacts.write_atomic(study / "points.csv", text.getvalue())
    law = {name: getattr(found.law, name) for name in ("E", "A", "B", "alpha", "beta")}
    told = {
        "points": [asdict(p) for p in found.points],
        "draws": len(found.laws),
        "valleys": [asdict(v) for v in found.valleys],
        "frontier": asdict(found.frontier),
        "exponent": asdict(found.exponent()),
        "law": law,
        "residual": found.residual,
        "prediction": predicted,
    }
    artefacts.write_atomic(study / "fit.json", artefacts.canonical_json(told))
    text_report = "<pre>" + report(found, predicted) + "</pre>"
    artefacts.write_atomic(study / "isoflop.html", page("Scaling laws of this data", picture(found) + text_report))


def picture(found: Fit) -> str:
    """Loss against size, a colour a budget, with its parabola."""
    series = []
    for budget in sorted({p.budget for p in found.points}):
        points = sorted((p.parameters, p.loss) for p in found.points if p.budget == budget)
        line = []
        for valley in (v for v in found.valleys if v.budget == budget):
            first, last = log(points[0][0]), log(points[-1][0])
            for i in range(41):
                at = first + (last - first) * i / 40
                line.append((exp(at), valley.loss + valley.curvature * (at - log(valley.parameters)) ** 2))
        series.append(Series(f"{budget:.3g} FLOPs", points, line))
    best = [(v.parameters, v.loss) for v in found.valleys]
    series.append(Series("optimum", best, best))
    return chart("Loss against size at equal compute", "matrix parameters", "held-out loss (nats a token)", series)


def report(found: Fit, predicted: dict[str, Any]) -> str:
    """The fit as lines of text."""
    lines = []
    for valley in found.valleys:
        where = "" if valley.inside else "  (beyond the sizes that ran: a guess)"
        tokens = valley.budget / 6 / valley.parameters
        lines.append(
            f"{valley.budget:.3g} FLOPs: best at {short(valley.parameters)} parameters, {short(tokens)} tokens, "
            f"loss {valley.loss:.4f}{where}"
        )
    power, law = found.exponent(), found.law
    lines += [
        f"N grows as C^{power.value:.3f} [{power.low:.3f}, {power.high:.3f}]; Chinchilla: C^0.50",
        f"loss = {law.E:.3f} + {law.A:.4g} / N^{law.alpha:.3f} + {law.B:.4g} / D^{law.beta:.3f}, "
        f"runs deviate by {found.residual:.2%}",
    ]
    size, loss = predicted["parameters"], predicted["loss"]
    lines.append(
        f"prediction for {predicted['flops']:.3g} FLOPs: {short(size['value'])} parameters "
        f"[{short(size['low'])}, {short(size['high'])}], {short(predicted['tokens'])} tokens, "
        f"loss {loss['value']:.4f} [{loss['low']:.4f}, {loss['high']:.4f}]"
    )
    return "\n".join(lines)
