import json

import pytest

from headwater_align._contracts import manifest
from headwater_align.cli import main
from headwater_align.unseen.ranking import matches
from headwater_align.unseen.statistics import accuracy, paired
from headwater_align.unseen.table import table


@pytest.fixture(scope="module")
def unseen_instructions(tmp_path_factory, make_sources, jsonl):
    """Two held-out clusters, one with options and one with free answers, beside conversations to tune on."""
    folder = tmp_path_factory.mktemp("unseen")
    rows = [{"q": f"Is {i} more than {j}", "a": i > j} for i in range(12) for j in range(3, 9)]
    talk = [{"instruction": f"Number {i}?", "output": "a" * (3 + i % 4)} for i in range(40)]
    sources = {"rows": ("tasks", {"r.jsonl": jsonl(rows)}), "talk": ("instructions", {"t.jsonl": jsonl(talk)})}
    make_sources(folder / "sources", sources)
    more = {
        "cluster": "misc", "source": "rows", "fields": {"q": "q"}, "answer": "a", "options": ["yes", "no", "maybe"],
        "labels": {"true": "yes", "false": "no"}, "phrasings": ["{q}?", "Say: {q}?"],
    }  # fmt: skip
    set_ = [f"catalogue.more={json.dumps(more)}", "tasks=[more, sums]", "unseen_rows=30"]
    set_ += ["heldout_clusters=[misc, arithmetic_reasoning]"]
    options = [part for one in set_ for part in ("--set", one)]
    common = ["--in", f"sources={folder}/sources", "--out", f"{folder}/out", "--work", f"{folder}/work"]
    assert main(["instructions", *common, *options]) == 0
    return folder / "out"


def ask(instructions, out, models, *options):
    inputs = [part for name, folder in models.items() for part in ("--in", f"{name}={folder}")]
    set_ = [part for one in options for part in ("--set", one)]
    where = ["--out", str(out), "--work", f"{out}.work"]
    return main(["unseen", "--in", f"instructions={instructions}", *inputs, *where, *set_])


def test_models_are_asked_the_same_and_compared_pair_by_pair(unseen_instructions, base_model, sft_model, tmp_path):
    models = {"base": base_model, "sft": sft_model, "twin": base_model}
    assert ask(unseen_instructions, tmp_path / "out", models, "max_new_tokens=8") == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    told = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    asked = [json.loads(line) for line in (unseen_instructions / "unseen.jsonl").read_text().splitlines()]
    assert metrics["format"] == {"base": "text", "sft": "chat", "twin": "text"}
    assert len(told) == 3 * len(asked) == 3 * metrics["questions"]
    by_id = {record["id"]: record for record in asked}
    for one in told:
        record = by_id[one["id"]]
        if record["options"]:
            assert one["said"] == record["options"][one["scores"].index(max(one["scores"]))]
            assert one["right"] == (one["said"] == record["answer"])
        else:
            assert one["scores"] is None
    for cluster, of in metrics["by_cluster"].items():
        for model, a in of["models"].items():
            assert a["right"] == sum(one["right"] for one in told if (one["model"], one["cluster"]) == (model, cluster))
        twin = of["against_before"]["twin"]
        assert (twin["difference"], twin["wrong_to_right"], twin["right_to_wrong"]) == (0, 0, 0)
        assert "base" not in of["against_before"]
    assert metrics["by_cluster"]["misc"]["models"]["base"]["chance"] == pytest.approx(1 / 3)
    assert (tmp_path / "out" / "unseen.md").read_text() == table(metrics)


def test_an_option_s_score_is_the_sum_of_its_tokens_alone(base_model):
    import torch

    from headwater_align.chat_format import ChatFormat
    from headwater_align.engine import forward, pretrained, runtime
    from headwater_align.unseen.questions import encode
    from headwater_align.unseen.ranking import option_scores

    runtime.initialize(seed=1)
    loaded = pretrained.load(base_model)
    chat = ChatFormat(loaded.tokenizer)
    records = [
        {"messages": [{"role": "user", "content": question}], "options": options}
        for question, options in (("Is it?", ["yes", "no", "not now"]), ("Is it so?", ["yes", "y"]), ("Or?", ["no"]))
    ]
    for form in ("chat", "text"):
        questions = encode(records, chat, form)
        for one, scores in zip(questions, option_scores(loaded.model, questions, 40), strict=True):
            for option, score in zip(one.options, scores, strict=True):
                row = torch.tensor([one.prompt + option])
                alone = forward.token_logprobs(loaded.model, row)[0, len(one.prompt) - 1 :].sum().item()
                assert score == pytest.approx(alone, abs=1e-4)


def test_questions_longer_than_a_context_are_left_out_for_every_model_and_counted(
    unseen_instructions, base_model, tmp_path, capsys
):
    assert ask(unseen_instructions, tmp_path / "out", {"base": base_model}, "max_new_tokens=250", "limit=10") == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["too_long"] == 10 and metrics["questions"] == 10  # the free answers need 250 tokens of room
    assert set(metrics["by_cluster"]) == {"misc"}


@pytest.mark.parametrize(
    ("options", "said"),
    [(["before=first"], "no model is named first; there are base"), (["formats={x: chat}"], "no model is named x")],
)
def test_a_model_that_is_not_there_is_one_line(unseen_instructions, base_model, tmp_path, capsys, options, said):
    assert ask(unseen_instructions, tmp_path / "out", {"base": base_model}, *options) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_instructions_without_a_held_out_cluster_are_refused(instructions, base_model, tmp_path, capsys):
    assert ask(instructions, tmp_path / "out", {"base": base_model}) == 1
    assert "name `heldout_clusters`" in capsys.readouterr().err


def test_paired_differences_by_hand():
    groups = ["a", "a", "b", "b", "c", "c"]
    before = [True, False, False, False, True, True]
    after = [True, True, True, False, False, True]
    found = paired(groups, before, after, resamples=2000, seed=1)
    assert (found["difference"], found["wrong_to_right"], found["right_to_wrong"]) == (1 / 6, 2, 1)
    assert (found["n"], found["groups"]) == (6, 3)
    # Every resample is three of the group means 1/2, 1/2, -1/2, so their extremes are these.
    assert (found["low"], found["high"]) == (-0.5, 0.5)


def test_an_interval_over_groups_is_wider_than_one_over_their_members():
    import random

    gains = [random.Random(i).choice([-1, 0, 1]) for i in range(100)]
    after = [gain >= 0 for gain in gains for _ in range(4)]
    before = [gain <= 0 for gain in gains for _ in range(4)]
    whole = paired([f"{i // 4}" for i in range(400)], before, after, 2000, 1)
    alone = paired([f"{i}" for i in range(400)], before, after, 2000, 1)
    assert whole["difference"] == alone["difference"] == sum(gains) / 100
    # Four equal members carry the information of one: the interval is twice as wide.
    assert (whole["high"] - whole["low"]) / (alone["high"] - alone["low"]) == pytest.approx(2, rel=0.1)


def test_a_model_that_always_says_the_same_has_balanced_accuracy_of_chance():
    records = [{"answer": a, "options": ["yes", "no"]} for a in ["yes"] * 8 + ["no"] * 2]
    said = ["yes"] * 10
    found = accuracy(records, said, [r["answer"] == s for r, s in zip(records, said, strict=True)])
    assert (found["accuracy"], found["majority"], found["chance"]) == (0.8, 0.8, 0.5)
    assert (found["balanced"], found["same"]) == (0.5, 1.0)
    assert (found["low"], found["high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson, 8 of 10


@pytest.mark.parametrize(
    ("written", "answer", "same"),
    [("The cat.", "cat", True), (" 42\n", "42", True), ("An  Old hat!", "old hat", True), ("cats", "cat", False)],
)
def test_free_answers_match_but_for_case_punctuation_and_articles(written, answer, same):
    assert matches(written, answer) is same


def test_an_artefact_of_another_kind_is_refused(unseen_instructions, tmp_path, capsys):
    (tmp_path / "m").mkdir()
    manifest.write(tmp_path / "m", manifest.Manifest("tokens", 1, "test", "0", "encode", {}))
    assert ask(unseen_instructions, tmp_path / "out", {"base": tmp_path / "m"}) == 1
    assert "holds tokens, but export is needed here" in capsys.readouterr().err
