"""Reading comprehension that lm-eval lacks (QuAC), gets wrong or cannot run (CoQA, SQuAD 2, ReCoRD).

CoQA and QuAC are asked turn by turn, the earlier turns given with their right answers; every turn is an item, and the
turns of a passage are one cluster. lm-eval asks CoQA's last turn only. Prompts are lm-eval's where it has one.

A `parse_*` takes a row of the hub's data set or an element of `data` of the authors' own JSON file.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np

from .answers import best, exact, f1, leave_one_out
from .benchmark import Benchmark, Item, Row, Scores
from .readers import digest
from .scores import sample_rows, score_row, scores_of_metrics
from .statistics import cluster_bootstrap, clustered_mean

Fields = dict[str, Any]


def _written(doc_to_text: Any, until: list[str], score: Any, metrics: tuple[str, ...], **more: Any) -> dict:
    """A task whose answer is written: its config, with the first gold answer in a shot."""
    return {
        "output_type": "generate_until",
        "doc_to_text": doc_to_text,
        "doc_to_target": lambda doc: doc["answers"][0],
        "generation_kwargs": {"until": until, "do_sample": False},
        "process_results": lambda doc, results: score(doc, results[0]),
        "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in metrics],
        **more,
    }


# --- SQuAD ---

UNANSWERABLE = "unanswerable"
"""What lm-eval shows, and expects, where the passage holds no answer."""


def parse_squad(row: dict) -> list[Fields]:
    """Questions of SQuAD, either version: an article of the authors' file, or a row of the hub (one question)."""
    if "paragraphs" not in row:
        return [_squad(row["title"], row["context"], row["question"], row["answers"]["text"])]
    return [
        _squad(row.get("title", ""), paragraph["context"], qa["question"], [a["text"] for a in qa["answers"]])
        for paragraph in row["paragraphs"]
        for qa in paragraph["qas"]
    ]


def _squad(title: str, passage: str, question: str, answers: list[str]) -> Fields:
    answers = list(dict.fromkeys(answers)) or [UNANSWERABLE]
    held = answers != [UNANSWERABLE]
    return {"text": f"{question.strip()} {answers[0] if held else ''}".strip(), "query": question.strip(),
            "answers": answers, "title": title, "passage": passage, "cluster": digest(passage),
            "category": "answerable" if held else UNANSWERABLE}  # fmt: skip


def ask_squad(item: Item) -> str:
    """lm-eval's prompt of squadv2."""
    return f"Title: {item['title']}\n\nBackground: {item['passage']}\n\nQuestion: {item['query']}\n\nAnswer:"


def score_squad(item: Item, written: str) -> dict[str, float]:
    """Exact match and F1, best over the gold answers; writing "unanswerable" says that there is none.

    The official script counts an empty answer as that. lm-eval hands it the word itself, which then never agrees.
    """
    answer = "" if exact(UNANSWERABLE, written) else written.strip()
    golds = [""] if item["answers"] == [UNANSWERABLE] else item["answers"]
    return {"exact": best(exact, golds, answer), "f1": best(f1, golds, answer)}


def squad_config() -> dict:
    """SQuAD 1.1: the model writes a line."""
    return _written(ask_squad, ["\n"], score_squad, ("f1", "exact"))


def squadv2_config() -> dict:
    """SQuAD 2: the model writes a line, and says how likely it finds that there is no answer."""
    return {**squad_config(), "also_ask": f" {UNANSWERABLE}"}


def squadv2_rows(benchmark: Benchmark, items: list[Item], logged: list[dict]) -> list[Row]:
    """Rows with the model's probability of no answer (`no_answer`) among the metrics."""
    rows = sample_rows(benchmark, items, logged)
    for row, sample in zip(rows, sorted(logged, key=lambda s: s["doc_id"]), strict=True):
        row["metrics"]["no_answer"] = math.exp(sample["filtered_resps"][1][0])
    return rows


def squadv2_scores(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """F1 and exact match: of what was written, by whether there is an answer, and with the best threshold.

    `best_*`: where the model's probability of no answer lies above a threshold, no answer counts as given; the
    threshold is the one that scores best on these very items, as in the official script, so it flatters.
    """
    scores = scores_of_metrics(benchmark, rows, ("f1", "exact"))
    clusters = [row["cluster"] for row in rows]
    for metric in ("f1", "exact"):
        values = np.array([row["metrics"][metric] for row in rows])
        for part in sorted({row["category"] for row in rows}):
            at = [i for i, row in enumerate(rows) if row["category"] == part]
            estimate = clustered_mean(values[at], [clusters[i] for i in at])
            scores[f"{benchmark.name}:{part}_{metric}"] = score_row(metric, estimate, len(at), None, "text")
        table = np.stack([values, [row["metrics"]["no_answer"] for row in rows],
                          [row["category"] == UNANSWERABLE for row in rows]], 1)  # fmt: skip
        estimate = cluster_bootstrap(table, clusters, lambda t: best_threshold(*t.T)[0], 200, 0)
        scores[f"{benchmark.name}:best_{metric}"] = score_row(f"best {metric}", estimate, len(rows), None, "text")
    return scores


def best_threshold(values: np.ndarray, no_answer: np.ndarray, unanswerable: np.ndarray) -> tuple[float, float]:
    """The best mean score that any threshold on the probability of no answer gives, and that threshold.

    The official script's `find_best_thresh`: begin with no answer everywhere, then take answers in the order of their
    probability of none. An unanswerable question then counts as wrong unless the model wrote nothing.

    Args:
        values: float [n], score of what was written.
        no_answer: float [n], probability.
        unanswerable: bool [n].
    """
    order = np.argsort(no_answer, kind="stable")
    gain = np.where(unanswerable.astype(bool), values - 1, values)[order]
    totals = np.concatenate([[0.0], np.cumsum(gain)]) + float(np.sum(unanswerable))
    at = int(np.argmax(totals))
    return float(totals[at]) / len(values), float(no_answer[order[at - 1]]) if at else 0.0


# --- conversations ---


def parse_coqa(row: dict) -> list[Fields]:
    """A story of CoQA (hub or authors' file) -> its turns."""
    questions, answers = _texts(row["questions"]), _texts(row["answers"])
    others = [_texts(more) for _, more in sorted((row.get("additional_answers") or {}).items()) if more]
    story = row["story"]
    if not len(questions) == len(answers) or any(len(more) != len(answers) for more in others):
        raise ValueError("questions and answers differ in number")
    cluster = digest(story)
    return [
        {
            "text": f"{question} {answers[turn]}",
            "query": question,
            "answers": [answers[turn], *(more[turn] for more in others)],
            "passage": story,
            "history": [list(pair) for pair in zip(questions[:turn], answers[:turn], strict=True)],
            "cluster": cluster,
            "category": row["source"],
        }
        for turn, question in enumerate(questions)
    ]


def _texts(turns: Any) -> list[str]:
    """The hub keeps turns as columns, the authors as a list of objects."""
    return list(turns["input_text"]) if isinstance(turns, dict) else [turn["input_text"] for turn in turns]


def ask_coqa(item: Item) -> str:
    """lm-eval's prompt of coqa, at this turn."""
    turns = "".join(f"Q: {question}\n\nA: {answer}\n\n" for question, answer in item["history"])
    return f"{item['passage']}\n\n{turns}Q: {item['query']}\n\nA:"


def score_coqa(item: Item, written: str) -> dict[str, float]:
    """F1 and exact match of the first line, against the references left out one at a time (CoQA's official script)."""
    answer = written.strip().split("\n")[0]
    return {"f1": leave_one_out(f1, item["answers"], answer), "em": leave_one_out(exact, item["answers"], answer)}


def coqa_config() -> dict:
    """CoQA, turn by turn."""
    return _written(ask_coqa, ["\nQ:"], score_coqa, ("f1", "em"))


def coqa_scores(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """F1 and exact match over all turns, and F1 by domain, as the authors report it."""
    scores = scores_of_metrics(benchmark, rows, ("f1", "em"))
    for domain in sorted({row["category"] for row in rows}):
        part = [row for row in rows if row["category"] == domain]
        estimate = clustered_mean(np.array([r["metrics"]["f1"] for r in part]), [r["cluster"] for r in part])
        scores[f"{benchmark.name}:{domain}"] = score_row("f1", estimate, len(part), None, "text")
    return scores


CANNOT_ANSWER = "CANNOTANSWER"
"""QuAC's mark of a question that the passage does not answer; its passages end with the word."""
MIN_HUMAN_F1 = 0.4
"""Questions on which people agree less are not scored (QuAC, section 5.1, and its official script)."""


def parse_quac(row: dict) -> list[Fields]:
    """A dialogue of QuAC -> its turns: a row of the hub, or an article of the authors' file."""
    if "paragraphs" not in row:
        texts = row["answers"]["texts"]
        return _quac(row["wikipedia_page_title"], row["section_title"], row["context"], row["dialogue_id"],
                     list(zip(row["questions"], texts, row["orig_answers"]["texts"], strict=True)))  # fmt: skip
    return [
        fields
        for paragraph in row["paragraphs"]
        for fields in _quac(
            row["title"],
            row["section_title"],
            paragraph["context"],
            paragraph["id"],
            [(q["question"], [a["text"] for a in q["answers"]], q["orig_answer"]["text"]) for q in paragraph["qas"]],
        )
    ]


def _quac(
    title: str, section: str, passage: str, dialogue: str, turns: list[tuple[str, list[str], str]]
) -> list[Fields]:
    history = [[question, answer] for question, _, answer in turns]
    return [
        {"text": f"{question} {original}", "query": question, "answers": valid_answers(answers), "passage": passage,
         "title": f"{title} - {section}", "history": history[:turn], "dialogue": dialogue,
         "cluster": digest(passage)}
        for turn, (question, answers, original) in enumerate(turns)
    ]  # fmt: skip


def valid_answers(answers: list[str]) -> list[str]:
    """QuAC's official rule: no answer where at least half of the people found none, else only what the others found."""
    spans = [answer for answer in answers if answer != CANNOT_ANSWER]
    return spans if len(spans) > len(answers) - len(spans) else [CANNOT_ANSWER]


def ask_quac(item: Item) -> str:
    """Title, paragraph, the turns so far: the layout of GPT-3's QuAC and of lm-eval's first versions."""
    turns = "".join(f"Q: {question}\n\nA: {answer}\n\n" for question, answer in item["history"])
    return f"TITLE: {item['title']}\nPARAGRAPH: {item['passage']}\n\n{turns}Q: {item['query']}\n\nA:"


def quac_f1(gold: str, answer: str) -> float:
    """Token F1; a question without an answer agrees with nothing but the mark itself."""
    return float(answer == CANNOT_ANSWER) if gold == CANNOT_ANSWER else f1(gold, answer)


def human_f1(answers: list[str]) -> float:
    """How well people agree: each against the others, the mean of the best F1; 1 where only one answered."""
    if len(answers) == 1:
        return 1.0
    return sum(best(f1, answers[:i] + answers[i + 1 :], answers[i]) for i in range(len(answers))) / len(answers)


def score_quac(item: Item, written: str) -> dict[str, float]:
    """F1 against the references left out one at a time, and whether it reaches people's (QuAC's official script)."""
    people, score = human_f1(item["answers"]), leave_one_out(quac_f1, item["answers"], written.strip().split("\n")[0])
    return {"f1": score, "heq": float(score >= people), "human_f1": people}


def quac_config() -> dict:
    """QuAC, turn by turn."""
    return _written(ask_quac, ["\nQ:"], score_quac, ("f1", "heq", "human_f1"))


def quac_scores(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """The official figures: F1 and HEQ-Q over questions on which people agree, HEQ-D over dialogues, F1 over all.

    HEQ-Q: share of questions where the model's F1 is at least people's; HEQ-D: share of dialogues where all are.
    """
    dialogues = {item["id"]: item["dialogue"] for item in items}
    agreed = [row for row in rows if row["metrics"]["human_f1"] >= MIN_HUMAN_F1]
    scores = {}
    if agreed:
        scores = scores_of_metrics(benchmark, agreed, ("f1", "heq"))
    whole: dict[str, list[float]] = defaultdict(list)
    passage = {}
    for row in rows:
        counts = row["metrics"]["human_f1"] >= MIN_HUMAN_F1
        whole[dialogues[row["doc_id"]]].append(row["metrics"]["heq"] if counts else 1.0)
        passage[dialogues[row["doc_id"]]] = row["cluster"]
    estimate = clustered_mean(np.array([min(heq) for heq in whole.values()]), [passage[d] for d in whole])
    scores[f"{benchmark.name}:heq_dialogue"] = score_row("heq", estimate, len(whole), None, "text")
    values = np.array([row["metrics"]["f1"] for row in rows])
    estimate = clustered_mean(values, [row["cluster"] for row in rows])
    scores[f"{benchmark.name}:unfiltered_f1"] = score_row("f1", estimate, len(rows), None, "text")
    return scores


# --- ReCoRD ---


def parse_record(row: dict) -> list[Fields]:
    """A query of ReCoRD with the passage's entities, each once and in alphabetical order, as lm-eval has them."""
    entities, answers = sorted(set(row["entities"])), sorted(set(row["answers"]))
    if not answers or not set(answers) <= set(entities):
        raise ValueError("an answer is none of the entities")
    return [{"text": row["query"].replace("@placeholder", answers[0]), "query": row["query"], "answers": answers,
             "entities": entities, "passage": row["passage"], "cluster": digest(row["passage"])}]  # fmt: skip


def ask_record(item: Item) -> str:
    """lm-eval's prompt of record: the passage and its highlights as a list, which the query continues."""
    text, *highlights = item["passage"].strip().split("\n@highlight\n")
    return text + "\n\n" + "".join(f"  - {highlight}.\n" for highlight in highlights)


def record_config() -> dict:
    """ReCoRD: the query with each entity in the blank; the likeliest is compared with the answers."""

    def fill(item: Item, entity: str) -> str:
        return f"  - {item['query']}".replace("@placeholder", entity)

    def score(item: Item, results: list) -> dict[str, float]:
        picked = item["entities"][int(np.argmax([total for total, _ in results]))]
        return {"f1": best(f1, item["answers"], picked), "em": best(exact, item["answers"], picked)}

    return {
        "output_type": "multiple_choice",
        "doc_to_text": ask_record,
        "doc_to_choice": lambda item: [fill(item, entity) for entity in item["entities"]],
        "doc_to_target": lambda item: fill(item, item["answers"][0]),
        "process_results": score,
        "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("f1", "em")],
    }


DEFINITIONS: dict[str, dict[str, Any]] = {
    "squad": {"own": squad_config, "parse": parse_squad, "file": "squad_shifts/squaddev_v1.1.json"},
    "squadv2": {"own": squadv2_config, "parse": parse_squad, "rows": squadv2_rows, "scores": squadv2_scores},
    "coqa": {"own": coqa_config, "parse": parse_coqa, "scores": coqa_scores, "file": "coqa.test.json"},
    "quac": {"own": quac_config, "parse": parse_quac, "scores": quac_scores},
    "record": {"own": record_config, "parse": parse_record},
}
"""What `catalogue.yaml`'s entries of these names need beside. The files are the package bigbench's, as the authors
publish them."""
