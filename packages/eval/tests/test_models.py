"""Which model a folder or a name means, and what tells two models apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headwater_eval import models
from headwater_eval._contracts.errors import UserError
from headwater_eval.models import ModelSpec, identify, is_certain, resolve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Hugging Face folder of an architecture that headwater-model does not read."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps({"architectures": ["RwkvForCausalLM"], "model_type": "rwkv"}))
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "tokenizer.json").write_text("{}")
    return made


def test_a_folder_of_another_architecture_goes_to_lm_evals_hf(folder: Path) -> None:
    spec = resolve(str(folder), {"trust_remote_code": False}, dtype="bfloat16")
    assert (
        spec.backend == "hf" and spec.arguments["pretrained"] == str(folder) and spec.arguments["dtype"] == "bfloat16"
    )


def test_a_folder_of_ours_is_scored_natively(tmp_path: Path, save_model) -> None:
    assert resolve(str(save_model(tmp_path / "m", 1)), {}).backend == "native"
    (tmp_path / "m/tokenizer.json").unlink()  # transformers may know another form of it
    assert resolve(str(tmp_path / "m"), {}).backend == "hf"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_any_changed_file_is_another_model_and_a_moved_folder_the_same(folder: Path, name: str) -> None:
    before = identify(resolve(str(folder), {}))
    moved = folder.rename(folder.with_name("moved"))
    assert identify(resolve(str(moved), {})) == before
    (moved / name).write_bytes((moved / name).read_bytes() + b" ")
    assert identify(resolve(str(moved), {})) != before


def test_precision_arguments_and_adapters_are_part_of_a_model(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"one")
    with_adapter = resolve("hf", {"pretrained": str(folder), "peft": str(adapter)})
    seen = [
        identify(resolve(str(folder), {}, dtype="float32")),
        identify(resolve(str(folder), {}, dtype="bfloat16")),
        identify(resolve(str(folder), {"add_bos_token": True})),
        identify(with_adapter),
    ]
    (adapter / "adapter_model.safetensors").write_bytes(b"two")
    seen.append(identify(with_adapter))
    assert len({json.dumps(identity, sort_keys=True) for identity in seen}) == len(seen)
    assert str(tmp_path) not in json.dumps(seen)


def test_what_is_served_under_a_name_is_not_certain(folder: Path) -> None:
    assert is_certain(resolve(str(folder), {})) and is_certain(ModelSpec("native", str(folder)))
    assert not is_certain(resolve("local-completions", {"model": "m", "base_url": "http://localhost"}))
    assert not is_certain(resolve("hf", {"pretrained": "openai-community/gpt2"}))
    assert not is_certain(resolve("hf", {"pretrained": str(folder), "peft": "somebody/adapter"}))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError("No module named 'vllm'", name="vllm")

    monkeypatch.setattr(models, "get_model", absent)
    with pytest.raises(UserError, match="needs vllm"):
        models.load(resolve("vllm", {"pretrained": "x"}))
