"""The report as a user gets it: through the command line, from artefacts on disk."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from headwater_eval._contracts.cli import main
from headwater_eval._contracts.manifest import read
from headwater_eval.report.build import chapters
from headwater_eval.report.config import ReportConfig
from headwater_eval.report.inputs import load
from headwater_eval.report.render import html, markdown
from headwater_eval.report.stage import STAGE
from headwater_eval.report.tables import settings_table

HOSTILE = (
    "</td></svg><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'too' ```\n# head\n|a|b|\n"
    "[link](javascript:alert(3)) \x00\x1b[31m \u202egnp.exe \ud800 &lt;b&gt; {{ 7 * 7 }} {% include 'x' %} </style>"
)


def make(run, out: Path, *without: str) -> int:
    work = out.with_name(f"{out.name}-work")
    arguments = ["report", *run.arguments(*without), "--out", str(out), "--work", str(work)]
    return main("headwater-eval", "0.1.0", [STAGE], argv=arguments)


class Page(HTMLParser):
    """Every tag with its attributes, and the text outside styles."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> tuple[str, str]:
    from .conftest import SmallRun

    root = tmp_path_factory.mktemp("run")
    assert make(SmallRun(root), root / "report") == 0
    return (root / "report/index.html").read_text(), (root / "report/report.md").read_text()


def test_page_loads_nothing_from_elsewhere_and_runs_no_script(page):
    parsed = Page(page[0])
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {t for t, _ in parsed.tags}
    for tag, attributes in parsed.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "action", "data") and "url(" not in (value or "")
            if name == "href":
                assert tag == "a" and value.startswith("#")
    assert "url(" not in page[0] and "@import" not in page[0] and "http://" not in page[0] and "https://" not in page[0]
    policy = next(a["content"] for t, a in parsed.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_every_tag_is_closed_and_every_link_has_its_chapter(page):
    parsed = Page(page[0])
    assert parsed.open == []
    anchors = {a["id"] for t, a in parsed.tags if t == "section"}
    assert {a["href"] for t, a in parsed.tags if t == "a"} == {f"#{anchor}" for anchor in anchors}


def test_hostile_text_in_every_place_stays_text(tmp_path, small_run):
    run = small_run(tmp_path / "run", text=HOSTILE, name=HOSTILE)
    assert make(run, tmp_path / "report") == 0
    page, twin = (tmp_path / "report/index.html").read_text(), (tmp_path / "report/report.md").read_text()
    parsed = Page(page)
    assert parsed.open == []
    assert not {"script", "img", "b"} & {t for t, _ in parsed.tags}
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert parsed.text.count("<script>alert(1)</script>") > 10, "the text is shown, as text"
    assert "{{ 7 * 7 }}" in parsed.text
    for made in (page, twin):
        assert not re.search("[\x00\x1b\u202e\ud800]", made)
        assert "[U+202E]" in made.replace("\\", "")
    outside = _outside_fences(twin)
    assert not re.search(r"(?<!\\)<", outside), "no raw HTML where Markdown would take it"
    assert not re.search(r"(?<!\\)\[link(?<!\\)\]\(", outside)
    assert "# head" not in [line.strip() for line in outside.splitlines()]


def _outside_fences(text: str) -> str:
    kept, fence = [], ""
    for line in text.splitlines():
        ticks = re.match(r"`{3,}", line)
        if not fence and ticks:
            fence = ticks[0]
        elif fence and line == fence:
            fence = ""
        elif not fence:
            kept.append(line)
    assert not fence, "every fence is closed"
    return "\n".join(kept)


def test_same_inputs_give_the_same_bytes_wherever_they_lie(tmp_path, small_run):
    pages = []
    for place in ("here", "there/deeper"):
        run = small_run(tmp_path / place)
        arguments = [*run.arguments(), "--out", str(tmp_path / place / "report")]
        code = (
            "import sys; from headwater_eval._contracts.cli import main; "
            "from headwater_eval.report.stage import STAGE; "
            "sys.exit(main('headwater-eval', '0.1.0', [STAGE], argv=['report', *sys.argv[1:]]))"
        )
        subprocess.run(
            [sys.executable, "-c", code, *arguments, "--work", str(tmp_path / place / "work")],
            check=True, env={"PYTHONHASHSEED": str(len(place)), "PATH": "/usr/bin:/bin"}, capture_output=True,
        )  # fmt: skip
        pages.append([(tmp_path / place / "report" / name).read_bytes() for name in ("index.html", "report.md")])
    assert pages[0] == pages[1]
    assert str(tmp_path).encode() not in pages[0][0] + pages[0][1]


def test_report_of_nothing_says_what_it_lacks(tmp_path, small_run):
    run = small_run(tmp_path / "run")
    assert make(run, tmp_path / "report", *[name.removesuffix("?") for name in STAGE.reads]) == 0
    made = (tmp_path / "report/index.html").read_text()
    assert "not given them: sources, items, extracted" in made


def test_any_one_absent_input_is_named_and_not_fatal(tmp_path, small_run):
    run = small_run(tmp_path / "run")
    names = [name.removesuffix("?") for name in STAGE.reads]
    folders = {name: folder for name in names if (folder := run.root / name).is_dir()}
    manifests = {name: read(folder) for name, folder in folders.items()}
    for absent in names:
        given = {name: folder for name, folder in folders.items() if name != absent}
        sections = chapters(load(given, manifests, STAGE.reads, run.root / "runs"), ReportConfig())
        for made in (html("title", "", sections), markdown("title", "", sections).replace("\\", "")):
            assert f"not given them: {absent}." in made


def test_a_flipped_byte_in_an_input_is_refused_and_nothing_is_published(tmp_path, small_run, capsys):
    run = small_run(tmp_path / "run")
    log = run.root / "checkpoint/log.jsonl"
    data = bytearray(log.read_bytes())
    data[100] ^= 1
    log.write_bytes(data)
    assert make(run, tmp_path / "report") == 1
    assert "checkpoint/log.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_file_that_is_no_json_is_one_line_that_names_it(tmp_path, small_run, capsys):
    run = small_run(tmp_path / "run")
    (run.root / "ppo/metrics.json").write_text("{cut off")
    run.seal("ppo")
    assert make(run, tmp_path / "report") == 1
    error = capsys.readouterr().err
    assert "ppo/metrics.json" in error and error.count("\n") == 1


def test_an_artefact_made_from_another_one_than_is_shown_is_called_stale(tmp_path, small_run):
    run = small_run(tmp_path / "run")
    (run.root / "corpus/metrics.json").write_text('{"documents_out": 1, "bytes_out": 2}')
    run.seal("corpus")
    assert make(run, tmp_path / "report") == 0
    made = (tmp_path / "report/index.html").read_text()
    told = re.search("Made from another version of an input than the one shown here: (.*?)</p>", made)[1]
    assert "tokenizer (from another corpus)" in told and "results-base (from another corpus)" in told
    assert " sft (" not in told, "its own inputs are the ones shown"


def test_a_comparison_is_stale_only_without_the_tokenizer_that_is_shown(tmp_path, small_run):
    run = small_run(tmp_path / "run")
    manifest = json.loads((run.root / "comparison/manifest.json").read_text())
    manifest["inputs"]["unigram"] = "0" * 64  # compared under a name of its own, and no part of the report
    (run.root / "comparison/manifest.json").write_text(json.dumps(manifest))
    assert make(run, tmp_path / "one") == 0
    assert "Made from another version" not in (tmp_path / "one/report.md").read_text()
    assert (tmp_path / "one/tokenizers.html").read_text() == "<p>the comparison's page</p>"
    manifest["inputs"]["bpe"] = "1" * 64
    (run.root / "comparison/manifest.json").write_text(json.dumps(manifest))
    assert make(run, tmp_path / "two") == 0
    assert "comparison (from another bpe, unigram)" in (tmp_path / "two/report.md").read_text()


def test_speeds_come_from_the_record_of_the_comparison(tmp_path, small_run):
    run = small_run(tmp_path / "run")
    (record,) = (run.root / "runs").glob("compare-comparison.json")
    measured = {"measured": {"speeds": {"bpe": {"encode": 123.4, "decode": 56.7}}}}
    record.write_text(json.dumps(json.loads(record.read_text()) | measured))
    assert make(run, tmp_path / "report") == 0
    (row,) = [line for line in (tmp_path / "report/report.md").read_text().splitlines() if line.startswith("| bpe |")]
    assert "1.987" in row and "123.4" in row and "56.7" in row


def test_missing_and_broken_run_records_are_said_and_not_fatal(tmp_path, small_run):
    run = small_run(tmp_path / "run")
    (run.root / "runs/broken.json").write_text("{")
    assert make(run, tmp_path / "one") == 0
    assert "The run record broken.json is not readable" in (tmp_path / "one/index.html").read_text()
    for record in (run.root / "runs").iterdir():
        record.unlink()
    assert make(run, tmp_path / "two") == 0
    made = (tmp_path / "two/index.html").read_text()
    assert "No run records were found" in made and "Time and memory" not in made


def test_new_run_records_reach_the_report_though_no_artefact_changed(tmp_path, small_run):
    run = small_run(tmp_path / "run")
    assert make(run, tmp_path / "report") == 0
    record = next((run.root / "runs").glob("*.json"))
    record.write_text(record.read_text().replace('"wall_s": 2.5', '"wall_s": 7777'))
    assert make(run, tmp_path / "report") == 0
    assert "2 h 09 min" in (tmp_path / "report/index.html").read_text()


def test_a_model_worse_than_the_compressor_and_ppo_without_gain_are_said_plainly(tmp_path, small_run):
    run = small_run(tmp_path / "run")
    changes = (("compressor", "1.9", "1.1"), ("outcome", '"reward_gain": 0.88', '"reward_gain": -0.2'))
    for name, old, new in changes:
        path = run.root / name / "metrics.json"
        path.write_text(path.read_text().replace(old, new))
        run.seal(name)
    assert make(run, tmp_path / "report") == 0
    made = (tmp_path / "report/report.md").read_text()
    assert "no better than the compressor: 1.650 bits per byte against 1.100" in made
    assert "PPO-ptx did not raise it" in made


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        ({}, "length alone tells 55.0%."),
        ({"accuracy_low": 0.49}, "is not shown to be better than a coin"),
        ({"length_only_accuracy": 0.66}, "is not shown to judge anything but length"),
        ({"accuracy_above_length_only_low": -0.01}, "is not shown to judge anything but length"),
        ({"length_only_accuracy": 0.66, "accuracy_above_length_only_low": 0.01}, "length alone tells 66.0%."),
    ],
)
def test_a_reward_model_is_believed_only_beyond_chance_and_length(tmp_path, small_run, figures, told):
    run = small_run(tmp_path / "run")
    path = run.root / "reward" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **figures}))
    run.seal("reward")
    assert make(run, tmp_path / "report") == 0
    assert told in (tmp_path / "report/report.md").read_text()


def test_markdown_has_every_table_of_the_page(page):
    captions = re.findall(r"<caption>(.*?)</caption>", page[0])
    assert len(captions) > 30
    assert page[1].count("\n| ---") == len(captions)


def test_chapters_without_figures_are_left_out_not_empty(tmp_path, small_run):
    run = small_run(tmp_path / "run")
    for name in ("filtered", "tokenizer", "reward", "results-sft"):
        (run.root / name / "metrics.json").unlink()
        run.seal(name)
    (run.root / "sft/log.jsonl").unlink()
    run.seal("sft")
    assert make(run, tmp_path / "report") == 0
    assert "The sft artefact has no training log" in (tmp_path / "report/index.html").read_text()


def test_a_parameter_of_one_is_not_shown_as_true():
    table = settings_table("Parameters", {"epochs": 1, "clip": 1.0, "floor": 0, "xz": True, "limit": None, "name": ""})
    shown = {"epochs": "1", "clip": "1.0", "floor": "0", "xz": "true", "limit": "null", "name": '""'}
    assert dict(table.rows) == shown


def test_written_answers_have_a_chapter_of_their_own_and_do_not_stand_among_bits_per_byte(tmp_path, small_run) -> None:
    assert make(small_run(tmp_path / "run"), tmp_path / "out") == 0
    text = (tmp_path / "out/report.md").read_text()
    chapters = dict(part.partition("\n")[::2] for part in text.split("\n## ")[1:])
    assert r"nq\_open" in chapters["Written answers"] and "0.125" in chapters["Written answers"]
    assert r"nq\_open" not in chapters["Held-out text"] and r"nq\_open" not in chapters["Benchmarks"]


def test_other_measures_of_bias_stand_in_their_own_table_and_name_their_classifier(page):
    html, told = page
    assert "Other tests of bias and toxicity" in html and "winobias" in told
    assert "c0ffee" in told and "0.836" in told


def test_leakage_probes_and_the_paired_comparison_have_chapters_and_their_pages_lie_beside(tmp_path, small_run):
    assert make(small_run(tmp_path / "run"), tmp_path / "out") == 0
    text = (tmp_path / "out/report.md").read_text().replace("\\", "")
    chapters = dict(part.partition("\n")[::2] for part in text.split("\n## ")[1:])
    assert "| loss | 40 | 0.517 [0.507, 0.527] |" in chapters["Leakage"] and "3.8%" in chapters["Leakage"]
    assert "| probes, negation | 200 | 25.0% | 45.0%" in chapters["Probes"]
    assert "pass@1" in chapters["Written answers"]
    assert "| boolq | 200 | +0.021" in chapters["Models on the same items"]
    assert "| 17 | 13 | 0.5847 | 0.5847 | McNemar |" in chapters["Models on the same items"]
    assert (tmp_path / "out/leakage.html").read_text() == "<p>leakage's own page</p>"
    assert (tmp_path / "out/paired.html").read_text() == "<p>the comparison's own page</p>"


def test_a_paired_comparison_of_other_results_is_stale(tmp_path, small_run):
    run = small_run(tmp_path / "run")
    manifest = json.loads((run.root / "paired/manifest.json").read_text())
    manifest["inputs"]["sft"] = "0" * 64
    (run.root / "paired/manifest.json").write_text(json.dumps(manifest))
    assert make(run, tmp_path / "one") == 0
    assert "paired (from another sft)" in (tmp_path / "one/report.md").read_text()
    assert make(run, tmp_path / "two", "results-sft") == 0
    assert "paired (from another" not in (tmp_path / "two/report.md").read_text()


def test_gains_tax_and_unseen_clusters_stand_in_the_report(page):
    text = page[1].replace("\\", "")
    assert "| PPO-ptx | 0.9 [0.8, 1] | 0.88 [0.7, 1.06] | 0.6 | 3.1 |" in text
    gains = text.split("Gains, by the reward model")[1]
    order = [gains.index(f"| {name} |") for name in ("base", "SFT", "best-of-4", "best-of-16", "DPO", "PPO", "PPO-ptx")]
    assert order == sorted(order)
    assert "| boolq | +0.021 [0.001, 0.042] |" in text.split("Alignment tax")[1]
    assert "The demonstrations hold 150 rows of boolq, of the training split" in text
    truth, tax = text.split("Truthfulness and harmlessness")[1].split("Alignment tax")[:2]
    assert "| TruthfulQA, MC2 | 200 | 45.0% | 44.0% [39.0, 49.0] | 46.0% [41.0, 51.0] |" in truth
    assert "| TruthfulQA, MC2 | \u22120.062 [0.001, 0.042]* |" in truth and "truthfulqa_mc2" not in tax
    short, folded = truth.split("Truthfulness by category")
    assert "| HHH, honest | 200 |" in short and "MC2, G" not in short and "| TruthfulQA, MC2, G |" in folded
    assert "| natural language | SFT | 80 | 50.0% | 62.5% [52.5%, 72.5%] | +12.5 [2.5, 22.5] | 14 / 4 | 75.0% |" in text
