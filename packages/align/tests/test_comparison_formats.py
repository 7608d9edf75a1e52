"""Rows as the public sets and tools write them, beside what they mean."""

import pytest

from headwater_align.conversation import BadRow
from headwater_align.readers import read

ASKED = [{"role": "user", "content": "Why is the sky blue?"}]


def said(answer):
    return [*ASKED, {"role": "assistant", "content": answer}]


def one(row):
    holds, parts = read(row)
    assert holds == "comparisons" and len(parts) == 1
    if isinstance(parts[0], BadRow):
        raise parts[0]
    return parts[0]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why is the sky blue?", "chosen": "Air.", "rejected": "Sea."},
        {"prompt": ASKED, "chosen": said("Air.")[1:], "rejected": said("Sea.")[1:]},
        {"chosen": said("Air."), "rejected": said("Sea.")},  # TRL's implicit prompt
        {"prompt": "Why is", "chosen": said("Air."), "rejected": said("Sea."), "messages": said("Air.")},
        {"instruction": "Why is the sky blue?", "input": "", "chosen": "Air.", "rejected": "Sea."},
        {
            "chosen": "\n\nHuman: Why is the sky blue?\n\nAssistant: Air.",
            "rejected": "\n\nHuman: Why is the sky blue?\n\nAssistant: Sea.",
        },
        {
            "conversations": [{"from": "human", "value": "Why is the sky blue?"}],
            "chosen": {"from": "gpt", "value": "Air."},
            "rejected": {"from": "gpt", "value": "Sea."},
        },
    ],
)
def test_pairs_of_every_spelling_mean_the_same(row):
    made = one(row)
    assert (made["prompt"], made["responses"], made["ranks"]) == (ASKED, ["Air.", "Sea."], [1, 2])


def test_a_margin_is_the_strength_and_one_against_the_choice_is_refused():
    row = {"prompt": "Q?", "chosen": "a", "rejected": "b", "margin": 1.5}
    assert one(row)["strength"] == 1.5
    with pytest.raises(BadRow, match="strength"):
        one(row | {"margin": -1.5})


# From hh-rlhf's harmless-base, shortened: several turns, an assistant that goes first, one that says nothing.
HH = "\n\nHuman: what are some pranks?\n\nAssistant: Practical jokes?\n\nHuman: yep\n\nAssistant:"


def test_a_transcripts_turns_become_the_prompt():
    made = one({"chosen": f"{HH} Swap the ink.", "rejected": f"{HH} Hide the pen."})
    assert [m["role"] for m in made["prompt"]] == ["user", "assistant", "user"]
    assert made["responses"] == ["Swap the ink.", "Hide the pen."]


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (f"{HH} Yes.", f"{HH}", "empty completion"),
        (f"{HH} Yes.", f"{HH} Yes.", "the answers are equal"),
        (f"{HH} Yes.", "\n\nHuman: something else?\n\nAssistant: No.", "differ before the last answer"),
        (f"{HH} Yes.", f"{HH} No.\n\nHuman: thanks", "differ before the last answer"),
        ("\n\nAssistant: Hello.", "\n\nAssistant: Hi.", "no messages"),
        ("\n\nHuman: a\n\nHuman: b\n\nAssistant: c", "\n\nHuman: a\n\nHuman: b\n\nAssistant: d", "do not alternate"),
    ],
)
def test_a_transcript_that_is_no_comparison_is_refused_with_the_reason(chosen, rejected, reason):
    with pytest.raises(BadRow, match=reason):
        one({"chosen": chosen, "rejected": rejected})


# The example of openai/summarize-from-feedback's README, its texts shortened.
SUMMARIES = {
    "info": {"post": "I had a car accident on friday.", "title": "Dutch law?", "subreddit": "legaladvice"},
    "summaries": [
        {"text": " car accident, need info", "policy": "sup4_ppo_rm3_kl10", "note": "By driving fast."},
        {"text": " we suspect the other was speeding", "policy": "ref", "note": "Unclear."},
    ],
    "choice": 1,
    "worker": "ikNmucwunMnYJCQpnq6ZYb57OW7NiD",
    "batch": "batch9",
    "split": "train",
    "extra": {"confidence": 8},
}


def test_a_summary_comparison_keeps_policy_worker_batch_and_confidence():
    made = one(SUMMARIES)
    asked = "SUBREDDIT: r/legaladvice\n\nTITLE: Dutch law?\n\nPOST: I had a car accident on friday.\n\nTL;DR:"
    assert made["prompt"] == [{"role": "user", "content": asked}]
    assert made["ranks"] == [2, 1]
    assert made["policies"] == ["sup4_ppo_rm3_kl10", "ref"]
    assert (made["labeller"], made["batch"], made["split"]) == (SUMMARIES["worker"], "batch9", "train")
    assert made["confidence"] == 0.75  # 8 is three of four points from the middle towards the second


@pytest.mark.parametrize(
    ("choice", "points", "sure"), [(0, 1, 1.0), (1, 9, 1.0), (0, 5, 0.0), (0, 8, None), (1, None, None)]
)
def test_confidence_is_the_distance_from_the_middle_unless_it_contradicts_the_choice(choice, points, sure):
    assert one(SUMMARIES | {"choice": choice, "extra": {"confidence": points}})["confidence"] == sure


@pytest.mark.parametrize(
    ("split", "side"), [("valid1", "heldout"), ("valid2", "heldout"), ("test", "heldout"), ("train", "train")]
)
def test_the_rows_own_split_is_read(split, side):
    assert one(SUMMARIES | {"split": split})["split"] == side


def test_a_split_that_says_neither_is_refused():
    with pytest.raises(BadRow, match="unknown split"):
        one(SUMMARIES | {"split": "fold 3"})


def label_studio(result, **annotation):
    items = [{"id": name, "title": name, "body": f"Answer {name}"} for name in ("blog", "mdn", "wiki")]
    data = {"prompt": "Why is the sky blue?", "answer1": "Air.", "answer2": "Sea.", "items": items}
    return {"id": 7, "data": data, "annotations": [{"completed_by": 3, "result": [result], **annotation}]}


def ranker(value):
    return label_studio({"type": "ranker", "from_name": "rank", "to_name": "results", "value": {"ranker": value}})


@pytest.mark.parametrize(
    ("value", "ranks"),
    [
        ({"rank": ["mdn", "wiki", "blog"]}, [3, 1, 2]),  # no buckets: the tag's name is the only key
        (["mdn", "wiki", "blog"], [3, 1, 2]),  # as early versions saved it
        ({"rank 1": ["mdn"], "rank 2": ["wiki", "blog"]}, [2, 1, 2]),
        ({"2": ["wiki"], "10": ["blog"], "1": ["mdn"], "_": []}, [3, 1, 2]),
    ],
)
def test_label_studios_ranker_gives_an_order_or_tied_buckets(value, ranks):
    assert one(ranker(value))["ranks"] == ranks


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ranker({"rank": ["mdn", "wiki"]}), "not one rank an answer"),
        (ranker({"1": ["mdn"], "_": ["wiki", "blog"]}), "not one rank an answer"),
        (ranker({"1": ["mdn", "mdn"], "2": ["wiki", "blog"]}), "ranked twice"),
        (ranker({"good": ["mdn"], "bad": ["wiki", "blog"]}), "does not end in its rank"),
        (ranker({"1": ["mdn", "wiki", "blog"]}), "all ranks are equal"),
        (label_studio({"type": "pairwise", "value": {"selected": "none"}}), "neither left nor right"),
        (label_studio({"type": "choices", "value": {"choices": ["x"]}}), "without a comparison"),
        (label_studio({"type": "pairwise", "value": {"selected": "left"}}, was_cancelled=True), "discarded"),
    ],
)
def test_a_label_studio_annotation_that_ranks_nothing_is_refused(row, reason):
    with pytest.raises(BadRow, match=reason):
        one(row)


def test_two_annotations_are_two_labellers_and_a_prediction_is_none():
    left, right = (
        {"from_name": "pw", "to_name": "answer1,answer2", "type": "pairwise", "value": {"selected": side}}
        for side in ("left", "right")
    )
    row = label_studio(left) | {"predictions": [{"model_version": "gpt", "result": [right]}]}
    row["annotations"].append({"completed_by": {"id": 4, "email": "ann@example.org"}, "result": [right]})
    _, parts = read(row)
    assert [(p["labeller"], p["ranks"]) for p in parts] == [("3", [1, 2]), ("ann@example.org", [2, 1])]


FIELDS = {"prompt": "Why is the sky blue?", "response-1": "Air.", "response-2": "Sea.", "response-3": "Paint."}
FLAT = FIELDS | {  # as argilla 2.8's to_list(flatten=True) wrote it
    "id": "t1",
    "status": "pending",
    "ranking.responses": [["response-2", "response-1", "response-3"], ["response-3", "response-2", "response-1"]],
    "ranking.responses.users": ["5e8b5960-e50c-4e8c-82ea-2af192f1cd73", "080e0790-ebf0-42e5-a60e-8f1c1ba3c906"],
    "ranking.responses.status": ["submitted", "discarded"],
    "rating.responses": [4],
    "ranking.suggestion": ["response-1", "response-2", "response-3"],
}


def test_argillas_discarded_response_is_a_reject_and_its_suggestion_no_response():
    _, parts = read(FLAT)
    assert parts[0]["ranks"] == [2, 1, 3] and parts[0]["labeller"] == "5e8b5960-e50c-4e8c-82ea-2af192f1cd73"
    assert len(parts) == 2 and str(parts[1]) == "discarded by the labeller"
    with pytest.raises(BadRow, match="no submitted ranking"):
        one({"fields": FIELDS, "responses": {}, "suggestions": {"ranking": {"value": ["response-1", "response-2"]}}})


def nested(value, **more):
    return {"fields": FIELDS, "responses": {"ranking": [{"value": value, "user_id": "u"}]}, **more}


@pytest.mark.parametrize(
    "row",
    [
        nested([{"value": f"response-{i}", "rank": rank} for i, rank in ((1, 1), (2, 1), (3, 2))]),
        {
            "fields": FIELDS,
            "responses": [
                {
                    "user_id": "u",
                    "status": "submitted",
                    "values": {
                        "ranking": {
                            "value": [{"rank": 3, "value": "response-3"}]
                            + [{"rank": 1, "value": name} for name in ("response-2", "response-1")]
                        },
                        "why": {"value": "because"},
                    },
                }
            ],
        },
    ],
)
def test_argillas_ties_stay_ties(row):
    made = one(row)
    assert (made["ranks"], made["labeller"]) == ([1, 1, 2], "u")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (nested(["response-1", "response-1", "response-2"]), "not one rank an answer"),
        (nested([{"value": "response-1", "rank": 1}, {"value": "response-2"}]), "a rank is no number"),
        (nested(["response-1", "response-2"], status="pending"), "export it flat"),
    ],
)
def test_an_argilla_ranking_that_is_none_is_refused(row, reason):
    with pytest.raises(BadRow, match=reason):
        one(row)


def test_one_labellers_bad_ranking_costs_the_others_nothing():
    row = nested(["response-1", "response-2", "response-3"])
    row["responses"]["ranking"].append({"value": ["response-1", "response-2"], "user_id": "v"})
    _, parts = read(row)
    assert parts[0]["ranks"] == [1, 2, 3]
    assert isinstance(parts[1], BadRow)
