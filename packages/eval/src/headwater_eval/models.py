"""Which model is scored: a folder of Headwater's, any Hugging Face folder, or a backend of lm-eval by name.

A folder that headwater-model reads (where it is installed) is scored natively; any other goes to lm-eval's `hf`. A
name is one of lm-eval's own models: hf, vllm, openai-completions, ... with its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from . import prompting, steering
from ._contracts.errors import UserError
from ._contracts.manifest import NAME, sha256_file
from ._contracts.stage import code_hash
from .engine import BACKENDS, LM, get_model
from .lm import HeadwaterLM

WEIGHTS = ("pretrained", "peft", "delta", "tokenizer")
"""Arguments of lm-eval's backends that name files, here or on the hub."""
HUGGING_FACE = ("hf", "hf-auto", "huggingface")
LIBRARIES = ("lm-eval", "torch", "transformers", "vllm")
"""Whose versions decide what a backend of lm-eval answers, where they are installed."""


@dataclass(frozen=True)
class ModelSpec:
    """A model and how its forward pass runs; plain values, so that other processes can be told."""

    backend: str
    """native, or lm-eval's name."""
    folder: str = ""
    """Of the model, where it is one."""
    tokenizer: str = ""
    """Folder of the tokenizer, for a checkpoint."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Of lm-eval's backend."""
    dtype: str = "float32"
    threads: int = 1
    batch_tokens: int = 4096
    batch_size: int | None = None
    """Rows of a batch of lm-eval's backends; None: 16 of `hf`, else the backend's own number."""
    overlap: float = 0.5
    """See `lm.HeadwaterLM`."""
    steering: dict[str, Any] = field(default_factory=dict)
    """Of what it writes: `steering.plain`."""
    prompt: dict[str, Any] = field(default_factory=dict)
    """Around each question: `prompting.plain`."""


def resolve(model: str, arguments: dict[str, Any], tokenizer: Path | None = None, **options: Any) -> ModelSpec:
    """What a user means by a folder or a name.

    Args:
        arguments: of lm-eval's backend.
        tokenizer: folder, for a checkpoint of headwater-model.
        options: further fields of `ModelSpec`.

    Raises:
        UserError: neither a folder with a model nor a backend's name, or arguments for a model that takes none.
    """
    folder = Path(model)
    if not folder.is_dir():
        if model not in BACKENDS:
            raise UserError(f"{model}: neither a folder nor a backend of lm-eval; those are {', '.join(BACKENDS)}")
        return ModelSpec(model, arguments=arguments, **options)
    kind = _kind(folder)
    if kind == "hf":
        return ModelSpec(
            "hf",
            model,
            arguments={"pretrained": model, "dtype": options.get("dtype", "float32"), **arguments},
            **options,
        )
    if arguments:
        raise UserError(
            f"{folder}: headwater-model scores it, which takes no model arguments; "
            f"for lm-eval's own code name the backend: --model hf --model-args pretrained={folder}"
        )
    return ModelSpec("native", model, str(tokenizer or ""), **options)


def _kind(folder: Path) -> Literal["native", "hf"]:
    if (folder / "run.json").is_file():
        return "native"
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: neither config.json (a Hugging Face folder) nor run.json (a checkpoint) in it")
    if find_spec("headwater_model") is None:
        return "hf"
    from headwater_model import pretrained
    from headwater_model.model_config import KIND_DEFAULTS

    try:
        config, head = pretrained.read_config(folder)
    except Exception as e:
        if not hasattr(e, "exit_code"):
            raise
        return "hf"  # another architecture
    ours = (folder / "tokenizer.json").is_file() and head == "lm" and config.kind not in KIND_DEFAULTS
    return "native" if ours else "hf"


def identify(spec: ModelSpec) -> dict[str, Any]:
    """All of a model that its answers depend on, by content: no path, so that a moved folder is the same model."""
    if spec.steering:
        experts = {name: _files(Path(spec.steering[name])) for name in steering.EXPERTS if name in spec.steering}
        return {**identify(replace(spec, steering={})), "steering": steering.identify(spec.steering, experts)}
    if spec.prompt:
        return {**identify(replace(spec, prompt={})), "prompt": prompting.identify(spec.prompt)}
    files = {"model": _files(Path(spec.folder))} if spec.folder else {}
    if spec.backend == "native":
        if spec.tokenizer:
            files["tokenizer"] = _files(Path(spec.tokenizer), "tokenizer*.json")
        own = {name: sha256_file(Path(__file__).with_name(name)) for name in ("lm.py", "native.py")}
        how = {"dtype": spec.dtype, "batch_tokens": spec.batch_tokens, "overlap": spec.overlap}
        code = {"headwater_model": code_hash("headwater_model"), **own}
        return {"backend": "native", "files": files, **how, "code": code}
    local = {name: Path(value) for name, value in spec.arguments.items() if _is_local(value)}
    files |= {name: _files(path) for name, path in local.items()}  # pretrained, peft, delta, tokenizer, ...
    return {
        "backend": spec.backend,
        "files": files,
        "arguments": {name: value for name, value in spec.arguments.items() if name not in local},
        "batch_size": spec.batch_size,
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def is_certain(spec: ModelSpec) -> bool:
    """Whether `identify` knows the weights themselves; of what a server or a hub serves under a name it does not."""
    parts = [spec.arguments[name] for name in WEIGHTS if name in spec.arguments]
    return bool(spec.folder or "pretrained" in spec.arguments) and all(map(_is_local, parts))


def load(spec: ModelSpec) -> LM:
    """The model behind lm-eval's interface.

    Raises:
        UserError: what it needs is not installed, its folder is not whole, or it can't be steered so.
    """
    if spec.steering:
        return steering.steered(load(replace(spec, steering={})), spec.steering)
    if spec.prompt:
        return prompting.prompted(load(replace(spec, prompt={})), spec.prompt)
    if spec.backend == "native":
        from . import native

        tokenizer = Path(spec.tokenizer) if spec.tokenizer else None
        scorer = native.load(Path(spec.folder), spec.dtype, spec.threads, spec.batch_tokens, tokenizer)
        return HeadwaterLM(scorer, spec.overlap)
    arguments = dict(spec.arguments)
    if spec.batch_size is not None:
        arguments.setdefault("batch_size", spec.batch_size)
    if spec.backend in HUGGING_FACE:
        arguments.setdefault("batch_size", 16)
        if not _has_cuda():
            arguments.setdefault("device", "cpu")  # lm-eval's default is a GPU, whether there is one or not
    try:
        return get_model(spec.backend).create_from_arg_obj(arguments)
    except ModuleNotFoundError as e:
        raise UserError(
            f"lm-eval's {spec.backend} needs {e.name or 'packages'}, not installed here; its extras hold what "
            "each backend needs: pip install 'lm-eval[hf]', 'lm-eval[vllm]', 'lm-eval[api]'"
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as e:
        told = " ".join(str(e).split())[:300]
        raise UserError(f"{spec.folder or spec.backend}: lm-eval's {spec.backend} cannot load it ({told})") from None


def _is_local(value: object) -> bool:
    return isinstance(value, str) and value != "" and Path(value).exists()


def _files(folder: Path, pattern: str = "*") -> dict[str, str]:
    if folder.is_file():
        return {folder.name: sha256_file(folder)}
    found = sorted(path for path in folder.rglob(pattern) if path.is_file() and not path.name.startswith("."))
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in found if p.name != NAME}


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
