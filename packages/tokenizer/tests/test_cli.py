"""The command line says what it does, quickly."""

from __future__ import annotations

import json
import subprocess
import sys

from headwater_tokenizer.cli import main


def test_the_command_line_loads_no_heavy_library():
    heavy = {"numpy", "tokenizers", "numba", "pyarrow"}
    code = "import sys, headwater_tokenizer.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert "headwater_tokenizer.cli" in loaded and not heavy & set(loaded)


def test_dry_run_prints_the_resolved_config_and_a_fingerprint_and_makes_nothing(corpus, tmp_path, capsys):
    assert (
        main(["train", "--in", str(corpus), "--out", str(tmp_path / "t"), "--set", "vocab_size=512", "--dry-run"]) == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed["config"]["vocab_size"] == 512 and printed["config"]["split"] == "gpt4"
    assert len(printed["fingerprint"]) == 12
    assert not list(tmp_path.iterdir())


def test_an_unknown_parameter_names_the_nearest_right_one(corpus, tmp_path, capsys):
    assert main(["train", "--in", str(corpus), "--out", str(tmp_path / "t"), "--set", "vocabsize=512"]) == 2
    assert "vocabsize: unknown parameter; did you mean vocab_size?" in capsys.readouterr().err
