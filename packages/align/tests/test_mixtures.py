import json

import pytest

from headwater_align._contracts import manifest
from headwater_align.cli import main
from headwater_align.conversation import prompt_key
from headwater_align.instructions import read_split

WORDS = [
    f"{colour} {thing}" for colour in ("red", "blue", "green", "old") for thing in ("cup", "hat", "key", "map", "box")
]
PAIRS = [
    {"said": f"Yesterday we saw one {w} lying on the long table beside door number {i}.",
     "yes": f"There was one {w} there", "no": f"Nobody has ever seen any {w} in that place"}
    for i, w in enumerate(WORDS)
]  # fmt: skip
QUIZ = [
    {"question": f"Which of these things would number {i} choose to carry home?", "choices": [w, "a stone", "sand"],
     "answer": 0} for i, w in enumerate(WORDS * 3)
]  # fmt: skip
TALK = [{"instruction": f"Say hello in way {i}, please.", "output": f"Hello number {i}."} for i in range(30)]

CATALOGUE = {
    "entail": {
        "cluster": "natural_language_inference", "source": "pairs", "fields": {"premise": "said"}, "group": "premise",
        "cases": [{"fields": {"claim": side}, "answer": side} for side in ("yes", "no")], "options": ["yes", "no"],
        "phrasings": ["{premise} Does it follow that {claim}?", "Claim: {claim}. Text: {premise}"],
    },
    "quiz": {
        "cluster": "commonsense", "source": "quiz", "fields": {"q": "question"}, "answer": "answer",
        "options": "choices",
        "phrasings": ["{q}", "Quiz: {q}", "Tell me: {q}"],
        "inversions": [{"prompt": "Ask something that is answered with {answer}.", "answer": "{q}"}],
    },
}  # fmt: skip
ALL_KINDS = "mixture.kinds={zero_shot: 1, few_shot: 1, zero_shot_cot: 1, few_shot_cot: 1, inversion: 1}"
TASKS = [f"catalogue={json.dumps(CATALOGUE)}", "tasks=[entail, quiz, sums]", "heldout_fraction=0.25"]


def read(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture
def sources(tmp_path, make_sources, jsonl):
    leaked = {"instruction": f"Look: {PAIRS[3]['said']} What now?", "output": "Nothing."}
    return make_sources(
        tmp_path / "sources",
        {
            "pairs": ("tasks", {"p.jsonl": jsonl(PAIRS)}),
            "quiz": ("tasks", {"q.jsonl": jsonl([*QUIZ, {**QUIZ[0], "question": "Why " * 80}])}),
            "talk": ("instructions", {"t.jsonl": jsonl([*TALK, leaked])}),
        },
    )


@pytest.fixture
def make(tmp_path, sources):
    """A function that runs the stage with options and gives the output folder."""

    def run(*options, items=None, name="out"):
        inputs = ["--in", f"sources={sources}", *(["--in", f"items={items}"] if items else [])]
        set_ = [part for option in (*TASKS, *options) for part in ("--set", option)]
        assert main(["instructions", *inputs, "--out", f"{tmp_path}/{name}", "--work", f"{tmp_path}/w", *set_]) == 0
        return tmp_path / name

    return run


def test_nothing_of_a_held_out_cluster_is_tuned_on_and_all_of_it_can_be_asked(make):
    out = make("heldout_clusters=[natural_language_inference]", ALL_KINDS)
    tuned = (out / "train.jsonl").read_text() + (out / "heldout.jsonl").read_text()
    assert "natural_language_inference" not in tuned
    assert not any(pair["said"] in tuned or pair["yes"] in tuned or pair["no"] in tuned for pair in PAIRS)
    assert {r["reason"] for r in read(out, "rejects.jsonl")} == {"holds a row of a held-out cluster"}
    unseen = read(out, "unseen.jsonl")
    assert len(unseen) == 2 * len(PAIRS)
    for record in unseen:
        (message,) = record["messages"]
        assert record["split"] == "unseen" and message["role"] == "user"
        assert record["options"] == ["yes", "no"] and message["content"].endswith("OPTIONS:\n- yes\n- no")
        assert any(
            pair["said"] in message["content"] and pair[record["answer"]] in message["content"] for pair in PAIRS
        )


def test_solved_examples_are_the_training_side_s_and_never_the_question_s_own(make):
    out = make(ALL_KINDS, "mixture.options=1")
    train, heldout = read_split(out, "train"), read_split(out, "heldout")
    sides = {side: {r["example"] for r in records if "task" in r} for side, records in (("t", train), ("h", heldout))}
    assert not sides["t"] & sides["h"]
    shown = 0
    for record in train + heldout:
        for exemplar in record.get("template", {}).get("exemplars", []):
            shown += 1
            assert exemplar in sides["t"] and exemplar != record["example"]
        if record.get("task") == "entail" and record["split"] == "train":
            words = record["messages"][0]["content"]
            own = max((pair["said"] for pair in PAIRS), key=words.rfind)
            assert words.count(own) == 1
    assert shown > 20


def test_both_sides_share_no_prompt(make):
    out = make(ALL_KINDS)
    asked = [{prompt_key(r["messages"]) for r in read_split(out, side)} for side in ("train", "heldout")]
    assert all(asked) and not asked[0] & asked[1]
    assert json.loads((out / "mixture.json").read_text())["dropped"]["asked in training"] >= 1  # inversions of `quiz`


def test_every_kind_looks_as_it_is_called(make):
    out = make(ALL_KINDS, "mixture.options=1", "mixture.shots=[2, 3]")
    seen = set()
    for record in read_split(out, "train"):
        if "task" not in record:
            continue
        kind, (question, answer) = record["template"]["kind"], (m["content"] for m in record["messages"])
        seen.add((record["task"], kind))
        if record["task"] == "sums" and kind.endswith("cot"):
            assert "." in answer and " = " in answer and answer.rstrip(".").split()[-1].isdigit()
        if record["task"] == "sums" and kind == "inversion":
            assert question.startswith("Write a sum whose result is ")
        if record["task"] == "quiz" and kind != "inversion":
            assert record["template"]["options"] and "a stone" in question and answer in WORDS
        assert len(record["template"]["exemplars"]) in ((2, 3) if kind.startswith("few") else (0,))
    quiz = {"zero_shot", "few_shot", "inversion"}
    assert seen == {("quiz", k) for k in quiz} | {("entail", k) for k in quiz - {"inversion"}} | {
        ("sums", k) for k in quiz | {"zero_shot_cot", "few_shot_cot"}
    }  # fmt: skip


def test_what_is_reported_is_what_is_in_the_file(make):
    out = make(ALL_KINDS, "max_rows={sums: 60, quiz: 40}")
    mixture, train = json.loads((out / "mixture.json").read_text()), read_split(out, "train")
    assert mixture["rows"] == len(train) == sum(m["rows"] for m in mixture["by_member"].values())
    for kind, n in mixture["by_kind"].items():
        assert n["rows"] == sum(r.get("template", {"kind": "conversation"})["kind"] == kind for r in train)
    for cluster in ("commonsense", "arithmetic_reasoning"):
        assert mixture["by_cluster"][cluster]["rows"] == sum(r.get("cluster") == cluster for r in train)
    assert sum(mixture["by_phrasing"]["quiz"].values()) == mixture["by_member"]["quiz"]["rows"]
    assert mixture["by_member"]["sums"]["available"] <= 60
    assert json.loads((out / "metrics.json").read_text())["mixture"] == mixture


def test_rates_hold_and_a_repeated_row_comes_in_other_words(make):
    rates = "mixture.rates={quiz: 4, entail: 1, sums: 1, talk: 2}"
    out = make(rates, "mixture.max_epochs=3", "mixture.total=300")
    mixture, train = json.loads((out / "mixture.json").read_text()), read_split(out, "train")
    wanted = {name: m["wanted"] for name, m in mixture["by_member"].items()}
    assert wanted == {"quiz": 150, "entail": 38, "sums": 37, "talk": 75}  # of equal remainders the first name
    assert mixture["by_member"]["quiz"]["epochs"] > 2
    assert len({r["id"] for r in train}) == len(train)
    of_one = [r for r in train if r.get("example") == next(r["example"] for r in train if r.get("task") == "quiz")]
    assert len({r["template"]["phrasing"] for r in of_one}) == len(of_one) >= 2


def test_too_long_prompts_lose_solved_examples_first_and_are_counted_last(make):
    out = make("mixture.kinds={few_shot: 1}", "mixture.max_characters=260", "mixture.shots=[5, 5]")
    train = [r for r in read_split(out, "train") if "task" in r]
    assert max(sum(len(m["content"]) for m in r["messages"]) for r in train) <= 260
    assert {len(r["template"]["exemplars"]) for r in train if r["task"] == "quiz"} & {1, 2, 3}
    refused = [r for r in read(out, "rejects.jsonl") if r["reason"] == "longer than mixture.max_characters"]
    assert [r["task"] for r in refused] == ["quiz"]
    mixture = json.loads((out / "mixture.json").read_text())
    assert mixture["rows"] == mixture["wanted"]


def test_a_row_that_is_a_benchmark_item_is_refused_however_short(make, tmp_path):
    items = tmp_path / "items"
    items.mkdir()
    (items / "t.jsonl").write_text(
        json.dumps({"text": "7 7"}) + "\n" + json.dumps({"text": f"{QUIZ[0]['question']} {WORDS[0]}"}) + "\n"
    )
    manifest.write(items, manifest.Manifest("items", 2, "test", "0", "items", {}))
    refused = [r for r in read(make(items=items), "rejects.jsonl") if r["reason"] == "holds a benchmark item"]
    assert [r["task"] for r in refused].count("quiz") == 1


def test_the_same_inputs_give_the_same_bytes_and_another_seed_other_words(make):
    first, again, other = (
        make(ALL_KINDS, name="a"),
        make(ALL_KINDS, name="b"),
        make(ALL_KINDS, "mixture.seed=2", name="c"),
    )
    for name in ("train.jsonl", "heldout.jsonl", "mixture.json", "manifest.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / "train.jsonl").read_bytes() != (other / "train.jsonl").read_bytes()


def test_the_preview_says_the_same_and_writes_nothing(make, sources, tmp_path, capsys):
    mixture = json.loads((make(ALL_KINDS) / "mixture.json").read_text())
    capsys.readouterr()
    before = sorted(tmp_path.iterdir())
    set_ = [part for option in (*TASKS, ALL_KINDS) for part in ("--set", option)]
    assert main(["mixture", "--sources", str(sources), *set_]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{mixture['rows']} rows, {mixture['wanted']} wanted\n")
    for name, m in mixture["by_member"].items():
        assert f"| {name} | {m['cluster'] or '-'} | {m['available']} | {m['wanted']} | {m['rows']} |" in shown
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("tasks=[quizz]", "no task quizz; did you mean quiz?"),
        ("heldout_clusters=[paraphrase]", "no task of cluster paraphrase takes part; there are arithmetic_reasoning"),
        ("mixture.rates={quiz: 1}", "entail has no rate"),
        ("catalogue.quiz.source=nowhere", "no source nowhere"),
        ("catalogue.quiz.fields.q=missing", "task quiz has no usable example: 61 times no missing"),
        ("catalogue=missing.yaml", "missing.yaml: No such file"),
        ("mixture.kinds={few: 1}", "mixture.kinds"),
    ],
)
def test_what_is_wrong_is_one_line(sources, tmp_path, capsys, option, said):
    set_ = [part for one in (*TASKS, option) for part in ("--set", one)]
    common = ["--in", f"sources={sources}", "--out", f"{tmp_path}/out", "--work", f"{tmp_path}/w"]
    assert main(["instructions", *common, *set_]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
