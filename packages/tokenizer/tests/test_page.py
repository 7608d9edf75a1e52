"""The page of a comparison: token spans on any text, hostile text, and what the script does in a real browser."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from corpora import real_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from headwater_tokenizer.algorithms import learn
from headwater_tokenizer.cli import main
from headwater_tokenizer.compare.coloured import UNSEEN, drawn, groups
from headwater_tokenizer.compare.page import render
from headwater_tokenizer.compare.spans import Cutter, apart
from headwater_tokenizer.compare.spelling import probe
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.encoder import Encoder

CONFIGS = {
    "bpe": {"algorithm": "bpe"},
    "unigram": {"algorithm": "unigram"},
    "sentencepiece-bpe": {"algorithm": "sentencepiece-bpe"},
    "characters": {"algorithm": "characters", "vocab_size": 350, "coverage": 0.95},
    "bytes": {"algorithm": "bytes"},
    "normalised": {"algorithm": "bpe", "normalization": "nfkc", "lowercase": True},
    "without bytes": {"algorithm": "unigram", "byte_fallback": False},
    "wordpiece": {"algorithm": "wordpiece", "normalization": "nfd"},
    "words": {"algorithm": "words"},
}
LOSSLESS = ("bpe", "unigram", "sentencepiece-bpe", "characters", "bytes")
HOSTILE = (
    '</script><script>document.title="owned"</script><img src=x onerror="document.title=1">&amp;"\'\u2028\u202e\0\r\n'  # noqa: E501
)
PIECES = [
    "the", " The", "ing ", "\n\n", "\t", "  ", "é", "e\u0301", "ﬁ", "水库", "👩\u200d👩\u200d👧", "▁", "<0x0A>",
    "<|unk|>", "\u2028", "İ",
]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=30).map("".join)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    sample = [pa.array([text for _, text, _ in real_documents()][:120], pa.large_string())]
    made = {name: tmp_path_factory.mktemp("tokenizers") / name for name in (*CONFIGS, "metaspace")}
    for name, values in CONFIGS.items():
        made[name].mkdir()
        learn(sample, TrainConfig(**{"vocab_size": 600, **values})).save(str(made[name] / "tokenizer.json"))
    made["metaspace"].mkdir()
    metaspace().save(str(made["metaspace"] / "tokenizer.json"))
    return made


def metaspace() -> Tokenizer:
    """Llama 2's way: blanks as U+2581, one put before the text, bytes for what has no entry."""
    entries = ["[U]", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "t", "h", "e", "th", "▁th"]
    vocabulary = {token: i for i, token in enumerate(entries)}
    merges = [("t", "h"), ("▁", "th")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="[U]", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


@pytest.fixture(scope="module")
def encoders(folders) -> dict[str, Encoder]:
    return {name: Encoder(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def cutters(encoders) -> dict[str, Cutter]:
    return {name: Cutter(encoder) for name, encoder in encoders.items()}


@pytest.mark.parametrize("name", LOSSLESS)
@settings(max_examples=60)
@given(text=texts)
def test_the_spans_of_a_lossless_tokenizer_join_to_the_text(cutters, name, text):
    (cut,) = cutters[name].cut([text])
    assert b"".join(cut.pieces) == text.encode() and cut.origin is None
    assert [a for a, _ in cut.spans] == [0, *(b for _, b in cut.spans)][:-1] or not cut.spans


@pytest.mark.parametrize("name", [*CONFIGS, "metaspace"])
@settings(max_examples=40)
@given(text=texts)
def test_spans_of_any_tokenizer_lie_apart_and_boxes_show_the_whole_text(encoders, cutters, name, text):
    (cut,) = cutters[name].cut([text])
    edges = [edge for span in cut.spans for edge in span]
    assert edges == sorted(edges) and len(cut.spans) == len(cut.ids)
    assert all(0 <= a <= b <= len(text.encode()) for a, b in cut.origin or ())
    assert [i for first, after in groups(cut) for i in range(first, after)] == list(range(len(cut.ids)))
    html = drawn(cut, encoders[name].unknown)
    assert re.sub(f"[{UNSEEN}]", "", cut.text) == Text.of(html)
    assert html.count("<span") == sum(1 for _ in groups(cut))


def test_normalised_text_is_shown_and_points_into_the_text_given(cutters):
    (cut,) = cutters["normalised"].cut(["ﬁsh ＡB"])
    assert cut.text == "fish ab" and b"".join(cut.pieces) == b"fish ab"
    given = "ﬁsh ＡB".encode()
    assert [given[a:b].decode().lower() for a, b in cut.origin][-1].endswith("b")
    assert cut.origin[0][0] == 0 and cut.origin[-1][1] == len(given)


def test_words_leave_blanks_to_no_token(cutters, encoders):
    (cut,) = cutters["words"].cut(["the  of\n"])
    assert cut.spans == [(0, 3), (5, 7)]
    assert Text.of(drawn(cut, encoders["words"].unknown)) == "the  of\n"


def test_tokens_that_share_a_character_are_cut_by_their_bytes_where_these_fit():
    assert apart([(0, 3), (0, 3), (3, 4)], [b"\xe2", b"\x82\xac", b"x"]) == [(0, 1), (1, 3), (3, 4)]
    assert apart([(0, 3), (0, 3), (3, 4)], [None, b"\x82\xac", b"x"]) == [(0, 3), (3, 3), (3, 4)]
    assert apart([(0, 4), (1, 4)], [b"a\xe2", b"\x82\xac"]) == [(0, 2), (2, 4)]


def test_bytes_of_a_character_over_several_tokens_are_one_marked_box(cutters, encoders):
    (cut,) = cutters["bytes"].cut(["a€"])
    found = str(drawn(cut, encoders["bytes"].unknown))
    ids = cut.ids
    assert f'<span class="c0" title="id {ids[0]}, 1 byte: 61">a</span>' in found
    told = f"3 tokens: id {ids[1]} (e2), id {ids[2]} (82), id {ids[3]} (ac)"
    assert f'<span class="c1 cut" data-n="3" title="{told}">€</span>' in found


class Text(HTMLParser):
    """The text of a piece of HTML."""

    def __init__(self):
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data):
        self.parts.append(data)

    @classmethod
    def of(cls, html) -> str:
        parser = cls()
        parser.feed(str(html))
        parser.close()
        return "".join(parser.parts)


class Elements(HTMLParser):
    """Names and attributes of a page's elements, and the content of its scripts."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script":
            self.scripts[-1] += data


def figures(encoder, stage="train", lossless=True, bytes_per_token=3.0, full=True) -> dict:
    """A tokenizer's part of comparison.json, with or without what may be null."""
    rates = {
        "documents": 9, "bytes": 900, "characters": 890, "words": 150, "tokens": 300,
        "bytes_per_token": bytes_per_token, "tokens_per_word": 2.0, "characters_per_token": 2.9,
        "unknown_share": 0.0, "byte_share": 0.01,
        "continued_words_share": 0.4, "single_character_words_share": 0.1, "vocabulary_used_share": 0.6,
        "renyi_efficiency": 0.5,
    }  # fmt: skip
    numbers = {str(n): (n + 1) / 2 for n in range(1, 10)}
    optional = {
        "parity": {lang: {"documents": 5, "tokens": 50, "premium": p} for lang, p in (("en", 1.0), ("de", 1.4))},
        "code": {"bytes_per_token": 2.5, "white_space_share": 0.2, "indentation": {"4": 1, "8": 2}},
        "morphemes": {"en": {"words": 20, "precision": 0.3, "recall": 0.5, "f1": 0.375}},
        "embedding": {"parameters": 100, "share_of_model": 0.2, "output_flops_per_byte": 1.0,
                      "body_flops_per_byte": 2.0},
        "judge": {"bits_per_byte": 1.5, "low": 1.4, "high": 1.6, "parameters": 10, "tokens": 10, "flops": 1e12,
                  "bytes": 900},
    }  # fmt: skip
    return {
        "algorithm": "bpe", "stage": stage, "vocabulary": encoder.vocab_size, "learned": encoder.vocab_size - 26,
        "lossless": lossless, "heldout": rates, "by_source": {"web": rates, HOSTILE: rates},
        "by_language": {"en": rates},
        "digits": {"tokens_per_number": numbers, "cuts": {"3": 2}, "aligned_from_right": False},
        "audit": {"unreachable": 1, "unreachable_examples": [HOSTILE], "under_trained": 0, "under_trained_examples": [],
                  "never_in_sample": 3, "partial_utf8": 4},
        "spelling": probe(encoder, ["weir", "strawberry"]),
        **(optional if full else dict.fromkeys(optional)),
    }  # fmt: skip


def comparison(tokenizers: dict) -> dict:
    heldout, sample = {"documents": 9, "bytes": 900, "words": 150}, {"documents": 80, "bytes": 9000}
    return {"heldout": heldout, "sample": sample, "tokenizers": tokenizers, "texts": ["odd", "b"]}


@pytest.fixture(scope="module")
def page(encoders) -> str:
    shown = {name: encoders[name] for name in ("bpe", "words", "normalised", "bytes")}
    tokenizers = {
        "bpe": figures(encoders["bpe"], bytes_per_token=3.25),
        "bytes": figures(encoders["bytes"], bytes_per_token=1.0),
        "words": figures(encoders["words"], lossless=False, bytes_per_token=11.0),
        "unigram": figures(encoders["unigram"], bytes_per_token=10.5),
        HOSTILE: figures(encoders["bpe"], stage="adopt", bytes_per_token=12.0),
    }
    documents = [
        {"id": "odd", "source": HOSTILE, "lang": "en", "text": f"naïve  wörds\t水库\n{HOSTILE} ﬁn, Ｅnd\n"},
        {"id": "b", "source": "", "lang": "", "text": "Another text.\n"},
    ]
    return render(comparison(tokenizers), documents, shown)


def test_hostile_text_stays_text(page):
    found = Elements(page)
    assert [tag for tag, _ in found.found].count("script") == 2 and "img" not in {tag for tag, _ in found.found}
    data = json.loads(found.scripts[0])
    assert HOSTILE in data["texts"][0]["text"] and HOSTILE in data["texts"][0]["name"]
    static = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    assert not re.search("[\u2028\u202e\0\r]", static)


def test_the_page_needs_nothing_from_outside(page):
    for _, attributes in Elements(page).found:
        assert not {"src", "srcset", "data"} & set(attributes) and attributes.get("href", "#").startswith("#")
    assert "@import" not in page and "url(" not in page


def test_the_best_trained_lossless_tokenizer_is_marked(page):
    table = page[page.index('<table class="sortable">') : page.index("</table>")]
    marked = re.findall(r'<td class="n best" data-v="([^"]*)">', table)
    assert "10.5" in marked and not {"1.0", "3.25", "11.0", "12.0"} & set(marked)
    assert table.index("adopted, for reference") > table.index(">unigram")


def test_what_was_not_measured_is_left_out(encoders):
    bare = {name: figures(encoders["bpe"], full=False) for name in ("one", "two")}
    page = render(comparison(bare), [], {})
    for title in ("Bits a byte", "English = 1", "embedding", "Morpheme", "indentation", "Text by token", "premium"):
        assert title not in page
    assert "Bytes a token against vocabulary" in page and "Tokens a number" in page


def test_the_same_comparison_gives_the_same_page(encoders):
    documents = [{"id": "a", "source": "s", "lang": "en", "text": "the weir"}]
    pages = {render(None, documents, {"bpe": encoders["bpe"], "bytes": encoders["bytes"]}) for _ in range(2)}
    assert len(pages) == 1


SCRIPT = """<script>
const done = {};
const at = id => document.getElementById(id);
const change = (id, value) => { at(id).value = value; at(id).dispatchEvent(new Event("change")); };
const boxes = side => [...document.querySelectorAll(`#${side}-text > span`)];
const told = side => at(side + "-told").textContent;
const rows = body => [...body.rows].filter(row => !row.classList.contains("group"));
const column = n => [...document.querySelector("table").tBodies].map(b => rows(b).map(r => r.cells[n].dataset.v));
done.drawn = [at("left-text").innerHTML === static_left, at("right-text").innerHTML === static_right];
done.first = told("left");
change("left", 3);
done.bytes = told("left");
done.count = boxes("left").length;
change("right", 2);
const first = boxes("left").find(b => b.textContent === "E" || b.textContent === "Ｅ");
first.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
done.lit = boxes("right").filter(b => b.classList.contains("lit")).map(b => b.textContent);
change("which", 1);
done.other = at("left-text").textContent;
const heads = [...document.querySelector("table thead").querySelectorAll("button")];
const density = heads.findIndex(head => head.textContent.startsWith("bytes"));
heads[density].click(); done.down = column(density);
heads[density].click(); done.up = column(density);
heads[0].click(); done.names = column(0)[0];
done.title = document.title;
document.body.dataset.done = JSON.stringify(done);
</script>"""


def test_in_a_browser_the_selects_redraw_pointing_frames_and_columns_sort(page, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    before = "<script>const [static_left, static_right] = ['left', 'right'].map(side => " \
             "document.getElementById(side + '-text').innerHTML);</script>"  # fmt: skip
    watched = page.replace('<script type="application/json"', before + '<script type="application/json"', 1)
    path = tmp_path / "page.html"
    path.write_text(watched.replace("</body>", SCRIPT + "</body>"))
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--virtual-time-budget=5000", "--dump-dom", path.as_uri()]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    body = next(attributes for tag, attributes in Elements(dom).found if tag == "body")
    done = json.loads(body["data-done"])
    data = json.loads(Elements(page).scripts[0])
    assert done["drawn"] == [True, True]  # page.js draws what coloured.py drew
    text = data["texts"][0]["text"]
    assert done["first"] != done["bytes"] and done["bytes"].startswith(f"{len(text.encode()):,} tokens")
    assert done["count"] == len(text)  # a box a character: its bytes are one box
    assert len(done["lit"]) == 1 and "e" in done["lit"][0]
    assert done["other"] == "Another text.\n"
    assert done["down"] == [["11.0", "10.5", "3.25", "1.0"], ["12.0"]]
    assert done["up"] == [["1.0", "3.25", "10.5", "11.0"], ["12.0"]]
    assert done["names"] == ["bpe", "bytes", "unigram", "words"]
    assert done["title"] == "Tokenizers compared"


def test_view_writes_a_page_and_prints_the_text(folders, tmp_path, capsys):
    text = "The weir:\n\tnaïve \x1b[2J水\n"
    (tmp_path / "text").write_text(text)
    out = tmp_path / "page.html"
    out.write_text("old")
    tokenizers = ["--tokenizer", str(folders["bpe"]), "--tokenizer", str(folders["words"])]
    assert main(["view", *tokenizers, "--text", str(tmp_path / "text"), "--out", str(out), "--terminal"]) == 0
    data = json.loads(Elements(out.read_text()).scripts[0])
    assert data["names"] == ["bpe", "words"] and data["texts"] == [{"name": "text", "text": text}]
    printed = capsys.readouterr().out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    assert "\x1b" not in plain and "[U+001B][2J水" in re.sub("×[0-9]", "", plain) and "The weir:↵\n" in plain
    assert sorted(tmp_path.iterdir()) == [out, tmp_path / "text"]


def test_view_reads_standard_input(folders, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("wéir".encode())))
    assert main(["view", "--tokenizer", str(folders["bytes"]), "--terminal"]) == 0
    assert "5 tokens, 1.00 bytes a token" in capsys.readouterr().out


def test_view_names_folders_by_as_little_as_tells_them_apart(folders, tmp_path, capsys):
    for run in ("one", "two"):
        shutil.copytree(folders["bytes"], tmp_path / run / "tokenizer")
    (tmp_path / "text").write_text("weir")
    tokenizers = [f"--tokenizer={tmp_path / run / 'tokenizer'}" for run in ("one", "two")]
    assert main(["view", *tokenizers, "--text", str(tmp_path / "text"), "--terminal"]) == 0
    assert re.findall("== (.*): ", capsys.readouterr().out) == ["one/tokenizer", "two/tokenizer"]


@pytest.mark.parametrize("given, said", [
    ({"tokenizer": "none"}, "none: no tokenizer.json"),
    ({"text": b""}, "empty"),
    ({"text": b"a\xff"}, "not UTF-8 (byte 0xff at 1)"),
    ({"text": b"a" * 100_001}, "100,001 bytes, but a page shows at most 100,000"),
    ({"text": None}, "No such file"),
    ({"out": "none/page.html"}, "no folder"),
])  # fmt: skip
def test_view_says_what_is_wrong_in_one_line(folders, tmp_path, monkeypatch, capsys, given, said):
    monkeypatch.chdir(tmp_path)
    if (content := given.get("text", b"weir")) is not None:
        (tmp_path / "text").write_bytes(content)
    tokenizer, out = given.get("tokenizer", str(folders["bytes"])), given.get("out", "page.html")
    assert main(["view", "--tokenizer", tokenizer, "--text", "text", "--out", out]) in (1, 2)
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1 and not list(tmp_path.glob("*.html"))


def test_an_added_token_that_the_normaliser_does_not_reach_is_shown_as_given(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"[U]": 0, "weir": 1}, unk_token="[U]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    tokenizer.add_tokens([AddedToken("DAM", normalized=False)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (cut,) = Cutter(Encoder(tmp_path)).cut(["Weir DAM"])
    assert (cut.text, cut.ids, cut.spans, cut.origin) == ("Weir DAM", [1, 2], [(0, 4), (5, 8)], None)
