"""What people read: each chapter from the artefacts at hand, and a sentence for each thing that is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..catalogue import suite
from ..report import data as report_data
from ..report.document import Block, Notice, Section, Table, Text
from ..report.inputs import Artefact, Json, Lineage
from ..report.scores import rows_of
from ..report.tables import cell, dig, nested_table, settings_table, spelled
from ..report.units import NONE, count, finite, fixed, number, percent, seconds, short_count, size
from .config import ModelCardConfig
from .energy import Energy

FIT = (0.667, 0.8)
"""Alpha below which reviewers' data says nothing, and above which it can be relied on (Krippendorff 2004, p. 241)."""
TUNING = ("instructions", "preferences")
RUNS = ("sft", "reward", "ppo")
SETTINGS = ("optimizer", "schedule", "objective", "precision", "micro_batch", "seed", "data", "ramp", "local")
KINDS = {
    "choice": "Benchmarks", "average": "Benchmarks", "code": "Benchmarks", "alignment": "Truthfulness and harmlessness",
    "probe": "Probes by expected behaviour", "bias": "Bias", "harm": "Bias", "toxic": "Toxicity", "leakage": "Leakage",
    "clean": "Contamination", "dirty": "Contamination", "difference": "Contamination",
}  # fmt: skip
"""Kind of a score -> the table that it stands in; another kind gets one of its own name. `toxic`: of kind harm, and of
a task on toxic language."""


class Card:
    """The chapters, and what was found missing on the way."""

    def __init__(
        self, lineage: Lineage, results: Mapping[str, Artefact], energy: Energy | str, config: ModelCardConfig
    ):
        self.lineage, self.results, self.energy, self.config = lineage, results, energy, config
        self.models = by_model(lineage, results, config.name)
        self.missing: list[str] = []

    def chapters(self) -> list[Section]:
        """All of them, in the order of Hugging Face's template."""
        made = [
            self.uses(), self.model(), self.data(), self.tuning(), self.recipe(), self.compute(), *self.scores(),
            self.review(), self.limits(), self.provenance(),
        ]  # fmt: skip
        if self.missing:
            told: list[Block] = [Text(sentence) for sentence in self.missing]
            made.insert(-1, Section("missing", "What is not known", told))
        return [section for section in made if section is not None]

    def lack(self, sentence: str) -> Notice:
        """Say that something is missing, there and in the list at the end."""
        self.missing.append(sentence)
        return Notice(sentence)

    def uses(self) -> Section:
        """What people state; no artefact knows it."""
        section = Section("uses", "Uses")
        for told, title, name in (
            (self.config.intended_use, "Intended use", "intended use"),
            (self.config.out_of_scope, "Out of scope", "use out of scope"),
        ):
            if told:
                section.blocks.append(Text(f"{title}: {told}"))
            else:
                section.blocks.append(self.lack(f"The {name} was not stated."))
        who = [("Developed by", self.config.developed_by), ("Contact", self.config.contact)]
        section.blocks += [Text(f"{title}: {told}.") for title, told in who if told]
        if self.config.licence is None:
            section.blocks.append(self.lack("The licence of the weights was not stated."))
        return section

    def model(self) -> Section:
        """Size and shape."""
        section = Section("model", "Model")
        run = self._json("checkpoint", "run.json") or {}
        shape = run.get("model") or dig(self._json("plan", "plan.json"), "model") or {}
        parameters = self.lineage.metrics("checkpoint").get("parameters")
        subject = self.lineage["model"] or self.lineage["base"]
        weights = subject.weights() if subject else None
        rows = [("parameters", count(weights if weights else parameters))] if weights or parameters else []
        rows += [(spelled(key), cell(shape[key])) for key in sorted(shape) if shape[key] is not None]
        rows += [("precision of training", str(run["precision"]))] if run.get("precision") else []
        vocabulary = self.lineage.metrics("tokenizer")
        if vocabulary.get("vocabulary"):
            rows.append(("tokenizer", f"{self._stage('tokenizer')}, {count(vocabulary['vocabulary'])} ids"))
        if rows:
            section.blocks.append(Table("Shape", ("", "value"), rows))
        else:
            section.blocks.append(self.lack("Size and shape are not known: no checkpoint, plan or export was given."))
        return section

    def data(self) -> Section:
        """What the model was trained on: sources with licences and shares, and what was taken out."""
        section = Section("data", "Training data")
        corpus = self.lineage["corpus"]
        if corpus is None:
            section.blocks.append(self.lack("The training data is not known: no corpus was given."))
            return section
        section.blocks += self._composition(corpus)
        section.blocks += self._funnel()
        card = self._json("card", "card.json")
        if card is None:
            section.blocks.append(
                self.lack("What was masked and how much is repeated is not known: no data card was given.")
            )
        else:
            section.blocks += _from_data_card(card)
        return section

    def _composition(self, corpus: Artefact) -> list[Block]:
        shape = report_data.composition(corpus)
        total = shape["bytes"].sum() or 1
        about = report_data.descriptions(self.lineage["sources"]) if self.lineage["sources"] else {}
        if not about:
            self.missing.append("Versions and origins of the sources are not known: no sources were given.")
        blocks: list[Block] = [
            Text(f"{size(total)} of text in {count(shape['documents'].sum())} documents, held-out ones included.")
        ]
        rows = []
        for row in shape.sort(["bytes", "source"], descending=[True, False]).to_dicts():
            told = about.get(str(row["source"]), {})
            origin = " ".join(str(told[key]) for key in ("kind", "version") if told.get(key))
            rows.append((str(row["source"]), str(row["licence"] or NONE), str(row["lang"] or NONE),
                         percent(row["bytes"] / total), size(row["bytes"]), origin or NONE))  # fmt: skip
        columns = ("source", "licence", "language", "#share", "#text", "fetched as")
        blocks.append(Table("Sources with their licences", columns, rows))
        for column, title in (("licence", "Licences"), ("lang", "Languages")):
            grouped: dict[str, int] = {}
            for row in shape.to_dicts():
                grouped[str(row[column] or NONE)] = grouped.get(str(row[column] or NONE), 0) + row["bytes"]
            ranked = sorted(grouped.items(), key=lambda entry: (-entry[1], entry[0]))
            blocks.append(
                Table(
                    title,
                    (title.lower().removesuffix("s"), "#share"),
                    [(name, percent(n / total)) for name, n in ranked],
                )
            )
        unknown = sum(row["bytes"] for row in shape.to_dicts() if not row["licence"])
        if unknown:
            blocks.append(self.lack(f"The licence of {percent(unknown / total)} of the training text is not known."))
        return blocks

    def _funnel(self) -> list[Block]:
        rows = [
            (report_data.STEPS.get(name, name), count(m.get("documents_in")), count(m.get("documents_out")),
             size(m.get("bytes_out")))
            for name in report_data.STEPS
            if finite((m := self.lineage.metrics(name)).get("documents_out"))
        ]  # fmt: skip
        columns = ("step", "#documents in", "#documents out", "#text out")
        return [Table("What each step of the data let through", columns, rows)] if rows else []

    def tuning(self) -> Section | None:
        """Demonstrations and comparisons, where the model was tuned."""
        held = [name for name in TUNING if self.lineage[name] is not None]
        if not held:
            if any(self.lineage[name] is not None for name in RUNS):
                self.missing.append("The tuning data is not known: neither instructions nor preferences were given.")
            return None
        section = Section("tuning", "Tuning data")
        for name in held:
            section.blocks.append(settings_table(name.capitalize(), _plain(self.lineage.metrics(name))))
        return section

    def recipe(self) -> Section:
        """How it was trained."""
        section = Section("recipe", "Training procedure")
        m, plan = self.lineage.metrics("checkpoint"), self._json("plan", "plan.json") or {}
        if not m:
            section.blocks.append(self.lack("The training recipe is not known: no checkpoint was given."))
        else:
            facts = [("tokens", count(m.get("tokens"))), ("steps", count(m.get("steps"))),
                     ("sequences a step", count(plan.get("batch"))), ("peak learning rate", number(self._peak_rate())),
                     ("loss at the end, nats a token", fixed(m.get("loss"))),
                     ("held-out bits per byte", fixed(m.get("heldout_bits_per_byte")))]  # fmt: skip
            section.blocks.append(Table("Pre-training", ("", "#value"), [row for row in facts if row[1] != NONE]))
            settings = self._json("checkpoint", "final/config.json")
            if settings:
                shown = {key: settings[key] for key in SETTINGS if settings.get(key) is not None}
                if isinstance(shown.get("optimizer"), Mapping):  # its rate is the plan's, where there is a plan
                    shown["optimizer"] = {k: v for k, v in shown["optimizer"].items() if k != "lr"}
                section.blocks.append(settings_table("Settings", _without_null(shown)))
            else:
                section.blocks.append(self.lack("The optimiser's settings are not known: the checkpoint holds none."))
            if m.get("events"):
                section.blocks.append(settings_table("Changes of course during the run", m["events"]))
        for name in RUNS:
            artefact = self.lineage[name]
            if artefact is not None:
                section.blocks.append(settings_table(f"Settings of {name}", _without_null(artefact.manifest.config)))
        return section

    def _peak_rate(self) -> float | None:
        """The highest learning rate that the run's log holds."""
        checkpoint = self.lineage["checkpoint"]
        rows = checkpoint.json_lines("log.jsonl") if checkpoint else []
        return max((row["lr"] for row in rows if finite(row.get("lr"))), default=None)

    def compute(self) -> Section:
        """FLOPs, hardware, time and an estimate of the energy."""
        section = Section("compute", "Compute and energy")
        m, environment = self.lineage.metrics("checkpoint"), self._json("checkpoint", "final/environment.json")
        flops = m.get("flops")
        if finite(flops):
            section.blocks.append(
                Text(f"Pre-training: {short_count(m.get('tokens'))} tokens, {number(flops)} floating-point operations.")
            )
        else:
            section.blocks.append(self.lack("The floating-point operations of training are not known."))
        if environment:
            gpus = environment.get("gpus") or []
            named = ", ".join(_gpu(gpu) for gpu in gpus) or "none"
            rows = [("processor", str(environment.get("processor", NONE))), ("cores", cell(environment.get("cores"))),
                    ("memory", f"{number(environment.get('memory_gb'))} GB"), ("GPUs", named)]  # fmt: skip
            section.blocks.append(Table("Hardware of pre-training", ("", "value"), rows))
        else:
            section.blocks.append(self.lack("The hardware of training is not known."))
        records = self.lineage.records
        if not records:
            section.blocks.append(self.lack("Time and memory are not known: no run records were found."))
        else:
            costs = [(r.name, seconds(r.wall_s), seconds(r.cpu_s), f"{count(r.peak_rss_mb)} MB") for r in records]
            columns = ("stage", "#wall time", "#CPU time", "#peak memory")
            section.blocks.append(Table("Time and memory of each stage", columns, costs))
        section.blocks += self._energy()
        return section

    def _energy(self) -> list[Block]:
        if isinstance(self.energy, str):
            return [self.lack(f"The energy is not known: {self.energy}.")]
        e, config = self.energy, self.config.energy
        blocks: list[Block] = []
        part = ""
        if "pretrain" in e.kwh:
            part = f", pre-training {number(e.kwh['pretrain'])} kWh of it"
        else:
            blocks.append(self.lack("The energy of pre-training is not known: no run record of it was found."))
        told = (
            f"Energy of the stages above, estimated: {number(e.total)} kWh{part}. "
            f"Measured wall time of each stage times the power of {config.devices} x {e.power}, times {config.pue:g} "
            "for the data centre. An upper estimate: full load is assumed, and stages that ran at the same time are "
            "counted one after the other."
        )
        where = f" ({config.location})" if config.location else ""
        if e.grams is None:
            self.missing.append("Emissions are not known: the carbon intensity of the grid was not stated.")
            return [*blocks, Text(told)]
        return [
            *blocks,
            Text(f"{told} At {config.grams_per_kwh:g} g of CO2-equivalent a kWh{where}: {number(e.grams)} g."),
        ]

    def scores(self) -> list[Section]:
        """One chapter a kind of score, a column a model; and bits per byte of held-out text."""
        if not self.results:
            return [Section("scores", "Scores", [self.lack("No score is known: no results were given.")])]
        titles: dict[str, list[str]] = {}
        for metrics in self.models.values():
            for key, row in sorted(metrics.items()):
                if isinstance(row, dict) and finite(row.get("value")):
                    keys = titles.setdefault(_title(key, row), [])
                    keys += [key] if key not in keys else []
        order = [*dict.fromkeys(KINDS.values()), "Held-out text"]
        ranked = sorted(titles, key=lambda title: (order.index(title) if title in order else len(order), title))
        made = [Section(title, title, _score_blocks(title, self.models, titles[title])) for title in ranked]
        for title, what in (("Bias", "Bias"), ("Leakage", "Leakage of training data"), ("Toxicity", "Toxicity")):
            if title not in titles:
                self.missing.append(f"{what}: none of the results given measures it.")
        return made

    def review(self) -> Section | None:
        """What people found."""
        artefact = self.lineage["review"]
        if artefact is None:
            self.missing.append("What people find wrong is not known: no review was given.")
            return None
        m = artefact.metrics
        found = m.get("failures") or {}
        section = Section("review", "Human review")
        section.blocks.append(
            Text(
                f"{count(m.get('items'))} answers were judged, {count(m.get('answers'))} judgements in all. A failure "
                f"is in {_with_interval(found, percent)} of all answers of the results reviewed; shares are weighted "
                "so that they speak for the answers that were not drawn too."
            )
        )
        rows = [
            (name, _with_interval(row, percent), count(row.get("count")))
            for name, row in _ranked(m)[: self.config.review_classes]
        ]
        if rows:
            columns = ("failure", "#share of answers", "#answers reviewed with it")
            section.blocks.append(Table("Failure classes", columns, [(n, s, str(c)) for n, s, c in rows]))
        section.blocks.append(self._agreement(m.get("agreement") or {}))
        return section

    def _agreement(self, a: Json) -> Block:
        alpha = a.get("alpha")
        if not finite(alpha):
            return self.lack("How far the reviewers agree is not known: no alpha could be computed.")
        told = f"Krippendorff's alpha of the reviewers: {_with_interval({**a, 'value': alpha}, fixed)}"
        told += f" on {count(a.get('items'))} answers."
        if alpha < FIT[0]:
            return Notice(f"{told} Below {FIT[0]}, so these classes are no more than hints.")
        return Text(told if alpha >= FIT[1] else f"{told} Between {FIT[0]} and {FIT[1]}: tentative conclusions only.")

    def limits(self) -> Section:
        """What the figures above say against the model, in words."""
        section = Section("limits", "Limits")
        for name, metrics in self.models.items():
            chosen = {**rows_of(metrics, "choice"), **rows_of(metrics, "alignment")}
            rows = {k: r for k, r in chosen.items() if ":" not in k}
            weak = [
                key for key, row in rows.items() if finite(row.get("low")) and row["low"] <= (row.get("chance") or 0)
            ]
            if weak:
                section.blocks.append(
                    Text(f"{name} is not shown to be better than guessing on {', '.join(sorted(weak))}.")
                )
            leaning = [
                key
                for key, row in rows_of(metrics, "bias").items()
                if finite(row.get("low")) and finite(row.get("chance"))
                and not row["low"] <= row["chance"] <= row["high"]
            ]  # fmt: skip
            if leaning:
                section.blocks.append(
                    Text(f"{name} scores otherwise than an indifferent model would on {', '.join(sorted(leaning))}.")
                )
            failed = [
                f"{key.partition(':')[2]} ({percent(row['value'])})"
                for key, row in rows_of(metrics, "probe").items()
                if ":" in key and finite(row.get("low")) and finite(row.get("chance")) and row["low"] <= row["chance"]
            ]
            if failed:
                section.blocks.append(Text(f"{name} is not shown to do better than a guess at: {', '.join(failed)}."))
        review = self.lineage.metrics("review")
        for name, row in _ranked(review)[:3]:
            section.blocks.append(Text(f"Reviewers found {name} in {_with_interval(row, percent)} of answers."))
        if not section.blocks:
            section.blocks.append(
                Text("No figure at hand shows one, which is no proof that there is none: see what is not known.")
            )
        return section

    def provenance(self) -> Section | None:
        """The artefacts that this card was filled from, by their hashes."""
        held = {**self.lineage.artefacts, **self.results}
        if not held:
            return None
        rows = [
            (name, f"{a.manifest.package} {a.manifest.version}", a.manifest.stage, a.hash[:12])
            for name, a in held.items()
        ]
        told = "Filled from these artefacts alone; the hash is that of the artefact's manifest.json."
        table = Table("Artefacts", ("artefact", "made by", "stage", "manifest"), rows)
        return Section("provenance", "Provenance", [Text(told), table])

    def _json(self, name: str, file: str) -> Json | None:
        artefact = self.lineage[name]
        return artefact.json(file) if artefact else None

    def _stage(self, name: str) -> str:
        artefact = self.lineage[name]
        return f"{artefact.manifest.package} {artefact.manifest.stage}" if artefact else NONE


def _from_data_card(card: Json) -> list[Block]:
    """What was masked, how much is repeated, which benchmark items stood in the text, harmful language."""
    blocks: list[Block] = []
    for key, head, caption in (
        ("private_data_masked", "kind", "Private data masked"),
        ("benchmark_overlap", "task", "Benchmark items: looked for, found and taken out, too short to look for"),
    ):
        if card.get(key):
            blocks.append(nested_table(caption, head, card[key]))
    if card.get("duplicates"):
        rows = [(members, count(n)) for members, n in sorted(card["duplicates"].items(), key=lambda e: int(e[0]))]
        blocks.append(Table("Clusters of duplicates, of which one document stayed", ("members", "#clusters"), rows))
    if card.get("harmful_language"):
        blocks.append(settings_table("Harmful language", card["harmful_language"]))
    return blocks


def by_model(lineage: Lineage, results: Mapping[str, Artefact], name: str) -> dict[str, Json]:
    """Scores of each model, the card's own first: results whose manifests name the same model are put together.

    A model goes by its name in the lineage, else by the name of its first results.
    """
    made: dict[str, Json] = {}
    called: dict[str, str] = {}
    known = {a.hash: name if n == "model" else n for n, a in reversed(lineage.artefacts.items())}
    for given, artefact in results.items():
        model = artefact.manifest.inputs.get("model", given)
        column = called.setdefault(model, known.get(model, given))
        made[column] = {**artefact.metrics, **made.get(column, {})}
    return dict(sorted(made.items(), key=lambda entry: entry[0] != name))


def languages(corpus: Artefact | None) -> list[str]:
    """ISO codes of the training text, the most text first."""
    if corpus is None:
        return []
    found: dict[str, int] = {}
    for row in report_data.composition(corpus).to_dicts():
        if row["lang"] and row["lang"] != "mul":
            found[row["lang"]] = found.get(row["lang"], 0) + row["bytes"]
    return sorted(found, key=lambda code: (-found[code], code))


def sources(corpus: Artefact | None) -> list[str]:
    """The sources of the training text, the most text first."""
    if corpus is None:
        return []
    found: dict[str, int] = {}
    for row in report_data.composition(corpus).to_dicts():
        found[str(row["source"])] = found.get(str(row["source"]), 0) + row["bytes"]
    return sorted(found, key=lambda name: (-found[name], name))


def _title(key: str, row: Json) -> str:
    kind, task = str(row.get("kind", "other")), key.partition(":")[0]
    if kind == "harm" and ("classifier" in row or task in {benchmark.name for benchmark in suite("toxicity")}):
        kind = "toxic"
    if task == "heldout" or row.get("metric") == "bits_per_byte":
        return "Held-out text"
    return "Benchmarks" if kind == "text" else KINDS.get(kind, spelled(kind).capitalize())


def _score_blocks(title: str, models: Mapping[str, Json], keys: Sequence[str]) -> list[Block]:
    """The headline scores, and those of parts and further metrics after them; a column a model that has any."""
    shown = {name: metrics for name, metrics in models.items() if any(key in metrics for key in keys)}
    headline = [key for key in keys if ":" not in key]
    parts = [key for key in keys if ":" in key]
    blocks: list[Block] = [_scores_table(f"{title}, with 95% intervals", title, shown, headline)] if headline else []
    return [*blocks, _scores_table("Parts and further metrics", title, shown, parts)] if parts else blocks


def _scores_table(caption: str, title: str, models: Mapping[str, Json], keys: Sequence[str]) -> Table:
    rows = []
    for key in keys:
        found = [metrics.get(key) or {} for metrics in models.values()]
        some = next(row for row in found if row)
        show: Callable[[float | None], str] = fixed if title == "Held-out text" else lambda value: number(value, 3)
        rows.append(
            (key, str(some.get("metric", "")), count(some.get("n")), number(some.get("chance"), 3),
             *(_with_interval(row, show) for row in found))
        )  # fmt: skip
    heads = ["score", "metric", "#n", "#chance", *(f"#{name}" for name in models)]
    return Table(caption, heads, rows)


def _with_interval(row: Json, show: Callable[[float | None], str]) -> str:
    if not finite(row.get("value")):
        return NONE
    if not (finite(row.get("low")) and finite(row.get("high"))):
        return show(row["value"])
    return f"{show(row['value'])} [{show(row['low'])}, {show(row['high'])}]"


def _ranked(review: Json) -> list[tuple[str, Json]]:
    found = review.get("by_class") or {}
    return sorted(((n, r) for n, r in found.items() if n != "none"), key=lambda entry: (-entry[1]["value"], entry[0]))


def _plain(metrics: Json) -> Json:
    return {key: value for key, value in metrics.items() if not isinstance(value, list)}


def _without_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_null(inner) for key, inner in value.items() if inner is not None}
    return value


def _gpu(gpu: Any) -> str:
    return str(gpu.get("name", gpu)) if isinstance(gpu, Mapping) else str(gpu)
