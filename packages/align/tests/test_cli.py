import json
import subprocess
import sys

import pytest

from headwater_align.cli import COMMANDS, STAGES, main

WITHOUT_ENGINE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "headwater_model":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from headwater_align.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", [stage.name for stage in STAGES] + [command.name for command in COMMANDS])
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert "usage: headwater-align" in capsys.readouterr().out


def test_the_command_line_loads_nothing_heavy():
    program = (
        "import sys, headwater_align.cli; print([m for m in ('torch', 'tokenizers', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


def test_without_the_engine_a_training_command_ends_in_one_line(base_model, instructions, tmp_path):
    stage = ["sft", "--in", f"model={base_model}", "--in", f"instructions={instructions}", "--out", f"{tmp_path}/out"]
    for arguments in (stage, ["chat", "--model", str(base_model)]):
        run = subprocess.run([sys.executable, "-c", WITHOUT_ENGINE, *arguments], capture_output=True, text=True)
        assert run.returncode == 1
        assert "headwater-model is needed" in run.stderr and run.stderr.count("\n") == 1


def test_without_the_engine_data_can_still_be_prepared(docstring_sources, tmp_path):
    arguments = ["instructions", "--in", f"sources={docstring_sources}", "--set", "sources=[docstrings]"]
    where = ["--out", f"{tmp_path}/out", "--work", f"{tmp_path}/work"]
    assert subprocess.run([sys.executable, "-c", WITHOUT_ENGINE, *arguments, *where]).returncode == 0


@pytest.mark.parametrize(
    ("stage", "option", "said"),
    [
        ("ppo", "batch_size=10", "batch_size 10 is no multiple of minibatches 8"),
        ("ppo", "kl_coeff=0.1", "did you mean kl_coef?"),
        ("sft", "optimizer.learning_rate=1", "optimizer.learning_rate: unknown parameter"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_starts(stage, option, said, capsys):
    assert main([stage, "--set", option]) == 2
    assert said in capsys.readouterr().err


def test_a_dry_run_prints_every_parameter(base_model, instructions, capsys):
    inputs = ["--in", f"model={base_model}", "--in", f"instructions={instructions}"]
    assert main(["sft", *inputs, "--dry-run", "--set", "optimizer.lr=0.5"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["optimizer"]["lr"] == 0.5
    assert shown["config"]["optimizer"]["decay"] == "cosine"
