"""The first chapter: the figures that matter, and plainly what is missing, stale or worse than it should be."""

from __future__ import annotations

from . import outcome
from .data import composition
from .document import Block, Fact, Facts, Notice, Section, Text
from .inputs import Lineage
from .lineage import made_from
from .scores import of_models
from .tables import dig
from .training import parameters, untrained_bits
from .units import count, finite, fixed, percent, seconds, short_count, signed, size


def summary(lineage: Lineage) -> Section:
    """Headline figures and findings."""
    facts = [*_data(lineage), *_model(lineage), *_scores(lineage), *_alignment(lineage), *_cost(lineage)]
    blocks: list[Block] = [Text(sentence) for sentence in _story(lineage)]
    blocks.append(Facts(facts) if facts else Text("No figure is at hand."))
    blocks += [Text(sentence) for sentence in good_news(lineage)]
    blocks += [Notice(sentence) for sentence in shortfalls(lineage)]
    return Section("summary", "Summary", blocks)


def _story(lineage: Lineage) -> list[str]:
    """What was done, in one sentence for the data and the model and one for the tuning, as far as artefacts tell."""
    told = []
    corpus = lineage["corpus"]
    if corpus is not None:
        shape = composition(corpus)
        first = dig(lineage.metrics("extracted"), "documents_out")
        text = f"a corpus of {size(shape['bytes'].sum())}: {count(shape['documents'].sum())} "
        text += f"of {count(first)} extracted documents" if finite(first) else "documents"
        text += f", from {count(shape['source'].n_unique())} sources"
        seen, size_of_model = lineage.metrics("checkpoint").get("tokens"), parameters(lineage)
        if finite(seen) and size_of_model:
            text += (
                f". A model of {short_count(size_of_model)} parameters was trained on {short_count(seen)} tokens of it"
            )
        told.append(f"This run made {text}.")
    if (last := outcome.final(lineage)) is not None:
        shown = [lineage.metrics("sft").get("train_rows"), lineage.metrics("reward").get("train_pairs")]
        if all(map(finite, shown)):
            told.append(
                f"The model was then tuned on {count(shown[0])} demonstrations (SFT) and by {outcome.told(last)}; its "
                f"judge, the reward model, had learned from {count(shown[1])} comparisons."
            )
    if told:
        told.append("Bits per byte say how well a model predicts text that it never saw: less is better.")
    return told


def good_news(lineage: Lineage) -> list[str]:
    """Comparisons that came out as they should, as sentences with their numbers."""
    return [sentence for well, sentence in _comparisons(lineage) if well]


def shortfalls(lineage: Lineage) -> list[str]:
    """What is missing, stale, or worse than the baseline."""
    found = [sentence for well, sentence in _comparisons(lineage) if not well]
    if lineage.absent:
        found.append(f"Not in this report, since the stage was not given them: {', '.join(lineage.absent)}.")
    stale = []
    for name, inputs in made_from(lineage).items():
        others = [given for given, maker in inputs.items() if maker is None and _at_hand(lineage, name, given)]
        stale += [f"{name} (from another {', '.join(others)})"] if others else []
    if stale:
        found.append(f"Made from another version of an input than the one shown here: {', '.join(stale)}.")
    if not lineage.records:
        found.append("No run records were found, so times and memory are left out (parameter records).")
    found += lineage.faults
    return found


def _at_hand(lineage: Lineage, name: str, given: str) -> bool:
    """Whether this report shows what another stage calls `given`: the same name, or the only one of its kind."""
    inputs, tokenizer = lineage.artefacts[name].manifest.inputs, lineage["tokenizer"]
    if name == "paired":  # it calls the results of a model by the model's name
        return lineage[f"results-{given}"] is not None
    if lineage.artefacts[name].manifest.kind == "comparison" and given not in ("corpus", "sources", "documents"):
        # of the tokenizers that it compares under names of their own, only the lineage's is shown
        return tokenizer is not None and tokenizer.hash not in inputs.values()
    digest = inputs[given]
    return lineage[given] is not None or (not lineage.absent and lineage.maker(digest) is None)


def _comparisons(lineage: Lineage) -> list[tuple[bool, str]]:
    """(whether it came out as it should, the sentence)."""
    compared = (
        _against_untrained, _against_compressor, _benchmarks, _reward_accuracy, _reward_gain, _text_after_alignment,
    )  # fmt: skip
    return [found for compare in compared if (found := compare(lineage)) is not None]


def _against_untrained(lineage: Lineage) -> tuple[bool, str] | None:
    before, after = untrained_bits(lineage), dig(of_models(lineage), "base", "heldout", "value")
    if not finite(before) or not finite(after):
        return None
    told = f"Pre-training took held-out text from {fixed(before)} to {fixed(after)} bits per byte."
    return after < before, told


def _against_compressor(lineage: Lineage) -> tuple[bool, str] | None:
    model, other = dig(of_models(lineage), "base", "heldout") or {}, lineage.metrics("compressor").get("heldout") or {}
    ours, theirs, name = model.get("value"), other.get("value"), other.get("compressor", "compressor")
    if not finite(ours) or not finite(theirs):
        return None
    compared = f"{fixed(ours)} bits per byte against {fixed(theirs)} of {name}"
    seen = model.get("heldout_bytes"), other.get("heldout_bytes")
    if seen[0] != seen[1]:
        compared += f" (the model on {size(seen[0])} of the held-out text, the compressor on {size(seen[1])})"
    if ours < theirs:
        return True, f"The base model predicts held-out text better than the compressor: {compared}."
    return False, f"The base model predicts held-out text no better than the compressor: {compared}."


def _benchmarks(lineage: Lineage) -> tuple[bool, str] | None:
    averages = {name: dig(metrics, "average") for name, metrics in of_models(lineage).items()}
    scored = {
        name: row for name, row in averages.items() if row and finite(row.get("low")) and finite(row.get("chance"))
    }
    if not scored:
        return None
    above = [name for name, row in scored.items() if row["low"] > row["chance"]]
    if above:
        return True, f"On average over the benchmarks {' and '.join(above)} answer better than chance."
    return False, (
        "No model's average over the benchmarks is shown to be above chance, "
        "so differences between them are no sign of skill."
    )


def _text_after_alignment(lineage: Lineage) -> tuple[bool, str] | None:
    bits = {name: dig(metrics, "heldout", "value") for name, metrics in of_models(lineage).items()}
    last = outcome.final(lineage)
    name = outcome.told(last) if last else ""
    sft, after = bits.get("SFT"), bits.get(name)
    if not finite(sft) or not finite(after) or after <= sft:
        return None
    m = outcome.models(lineage)
    told = (
        f"{name} made the model worse at predicting text: {fixed(sft)} bits per byte after SFT, {fixed(after)} after it"
    )
    kl = dig(m, last or "", "kl")
    if finite(kl):
        told += f"; its answers lie {fixed(kl, 1)} nats of KL from SFT's"
    return False, f"{told}. Read its answers before trusting its reward."


def _reward_accuracy(lineage: Lineage) -> tuple[bool, str] | None:
    m = lineage.metrics("reward")
    if not all(finite(m.get(key)) for key in ("accuracy", "accuracy_low", "accuracy_high", "length_only_accuracy")):
        return None
    told = f"The reward model prefers the preferred answer in {percent(m['accuracy'])} of held-out pairs "
    told += f"[{percent(m['accuracy_low'])}, {percent(m['accuracy_high'])}]; "
    told += f"length alone tells {percent(m['length_only_accuracy'])}"
    above = m.get("accuracy_above_length_only_low")
    beats_length = above > 0 if finite(above) else m["accuracy_low"] > m["length_only_accuracy"]
    if m["accuracy_low"] > 0.5 and beats_length:
        return True, f"{told}."
    beaten = "be better than a coin" if m["accuracy_low"] <= 0.5 else "judge anything but length"
    return False, f"{told}, so it is not shown to {beaten}."


def _reward_gain(lineage: Lineage) -> tuple[bool, str] | None:
    found, last = outcome.models(lineage), outcome.final(lineage)
    if last is None or "sft" not in found:
        return None
    m, name = found[last], outcome.told(last)
    told = f"On held-out prompts the reward model gives SFT {fixed(found['sft'].get('reward'))} and {name} "
    told += f"{fixed(m.get('reward'))}, a difference of {signed(m['reward_gain'])}"
    low, high = m.get("reward_gain_low"), m.get("reward_gain_high")
    told += f" [{fixed(low)}, {fixed(high)}]" if finite(low) and finite(high) else ""
    if m["reward_gain"] <= 0:
        return False, f"{told}: {name} did not raise it."
    if finite(low) and low <= 0:
        return False, f"{told}: the interval holds zero, so this is no proven gain."
    judge = _reward_accuracy(lineage)
    if judge is not None and not judge[0]:
        return False, f"{told}: a gain in the eyes of a judge that is not shown to be right."
    return True, f"{told}."


def _data(lineage: Lineage) -> list[Fact]:
    facts = []
    if lineage["corpus"] is not None:
        shape = composition(lineage["corpus"])
        facts.append(Fact("Corpus", size(shape["bytes"].sum()), f"{count(shape['documents'].sum())} documents"))
    tokens = dig(lineage.metrics("tokens"), "train", "tokens")
    if finite(tokens):
        vocabulary = lineage.metrics("tokenizer").get("vocabulary")
        facts.append(Fact("Corpus in tokens", short_count(tokens), f"training split, vocabulary {count(vocabulary)}"))
    seen = lineage.metrics("checkpoint").get("tokens")
    if finite(seen):
        epochs = f", {fixed(seen / tokens, 2)} epochs" if finite(tokens) and tokens else ""
        facts.append(
            Fact(
                "Tokens trained on",
                short_count(seen),
                f"{count(lineage.metrics('checkpoint').get('steps'))} steps{epochs}",
            )
        )
    return facts


def _model(lineage: Lineage) -> list[Fact]:
    facts = []
    size_of_model = parameters(lineage)
    if size_of_model:
        facts.append(Fact("Parameters", short_count(size_of_model), "embeddings included"))
    base = dig(of_models(lineage), "base", "heldout", "value")
    best = lineage.metrics("compressor").get("heldout") or {}
    if finite(base):
        facts.append(
            Fact(
                "Bits per byte, base",
                fixed(base),
                f"held-out text, {size(dig(of_models(lineage), 'base', 'heldout', 'heldout_bytes'))}",
            )
        )
    if finite(best.get("value")):
        facts.append(
            Fact(
                f"Bits per byte, {best.get('compressor', 'compressor')}",
                fixed(best["value"]),
                f"held-out text, {size(best.get('heldout_bytes'))}",
            )
        )
    before = untrained_bits(lineage)
    if finite(before):
        facts.append(Fact("Bits per byte, untrained", fixed(before), "before the first step"))
    return facts


def _scores(lineage: Lineage) -> list[Fact]:
    facts = []
    for name, metrics in of_models(lineage).items():
        average = metrics.get("average") or {}
        if finite(average.get("value")):
            facts.append(
                Fact(f"Benchmarks, {name}", percent(average["value"]), f"chance {percent(average.get('chance'))}")
            )
    return facts


def _alignment(lineage: Lineage) -> list[Fact]:
    found, last = outcome.models(lineage), outcome.final(lineage)
    if last is None or "sft" not in found:
        return []
    told = f"{fixed(found['sft'].get('reward'), 2)} \N{RIGHTWARDS ARROW} {fixed(found[last].get('reward'), 2)}"
    return [Fact(f"Reward, SFT to {outcome.told(last)}", told, "held-out prompts")]


def _cost(lineage: Lineage) -> list[Fact]:
    if not lineage.records:
        return []
    wall = sum(r.wall_s for r in lineage.records)
    peak = max(r.peak_rss_mb for r in lineage.records)
    return [Fact("Wall time", seconds(wall), f"{len(lineage.records)} stage runs, peak {count(peak)} MB")]
