"""Published runs and figures (published.yaml) against the predictions of this package.

`python -m headwater_model.planning.validation` prints the tables of docs/planning.md; the tests hold the deviations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from . import costs, hardware, memory, throughput
from .layouts import Layout, violations
from .scaling import LAWS, appendix_f_flops
from .shapes import Shape
from .tables import markdown, percent, short

INTERLEAVES, MICRO_BATCHES = (1, 2, 3, 4), (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Check:
    """A published figure and ours."""

    what: str
    published: float
    ours: float
    note: str = ""

    @property
    def deviation(self) -> float:
        """Ours over the published one, less one."""
        return self.ours / self.published - 1


@dataclass(frozen=True)
class RunCheck(Check):
    """A published training run: `published` and `ours` in one unit of speed."""

    layout: Layout | None = None
    memory: float = 0.0
    """Bytes on the most loaded device."""
    fits: bool = True


@cache
def published() -> dict[str, Any]:
    """published.yaml."""
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text())


def chinchilla(law: str) -> list[tuple[Check, Check]]:
    """For each row of a table: its FLOPs and its tokens, each against the law's for the row's model size."""
    rows = []
    for parameters, flops, tokens in published()["chinchilla"][law]:
        ours = LAWS[law].tokens_for(parameters)
        name = short(parameters)
        rows.append((Check(name, flops, 6 * parameters * ours), Check(name, tokens, ours)))
    return rows


def appendix_f() -> list[Check]:
    """Table A4 of arXiv:2203.15556, which leaves out the vocabulary."""
    rows = []
    for parameters, layers, hidden, ffn, heads, key, ratio in published()["appendix_f"]:
        shape = Shape(layers, hidden, heads, vocab=32_000, context=2048, ffn=ffn)
        ours = appendix_f_flops(shape, key, vocabulary=False) / (6 * parameters)
        rows.append(Check(short(parameters), ratio, ours))
    return rows


def gpt(layers: int, hidden: int, heads: int) -> Shape:
    """The models of arXiv:2104.04473."""
    return Shape(layers, hidden, heads, vocab=51_200, context=2048)


MEGATRON_2021 = Layout(
    sequence_parallel=False, zero=0, recompute="full", attention="unfused", gradients="bfloat16", overlap=False
)
"""What Megatron-LM did in 2021: full recomputation, no overlap, 16-bit gradients."""


def megatron_tflops(shape: Shape, layout: Layout, device: hardware.Device, batch: int) -> float:
    """TFLOP/s a GPU as equation 3 of arXiv:2104.04473 counts them: four passes through the layers."""
    s, h, layers = shape.context, shape.hidden, shape.layers
    flops = 96 * batch * s * layers * h * h * (1 + s / (6 * h) + shape.vocab / (16 * layers * h))
    return flops / throughput.step(shape, layout, device, batch).total / layout.devices / 1e12


def megatron_table_1() -> list[RunCheck]:
    """The ten models, with the best micro-batch and interleaving that fit: neither is published."""
    device, rows = hardware.load("a100-80gb"), []
    for billions, heads, hidden, layers, t, p, gpus, batch, tflops in published()["megatron_table_1"]:
        shape, best = gpt(layers, hidden, heads), None
        for micro_batch in MICRO_BATCHES:
            for v in INTERLEAVES if p > 1 else (1,):
                layout = replace(
                    MEGATRON_2021, tensor=t, pipeline=p, data=gpus // (t * p), micro_batch=micro_batch, interleave=v
                )
                needed = memory.estimate(shape, layout, batch)
                if violations(layout, shape, batch, device.node) or not memory.fits(needed, device):
                    continue
                ours = megatron_tflops(shape, layout, device, batch)
                if best is None or ours > best.ours:
                    best = RunCheck(f"{billions:g}B", tflops, ours, layout=layout, memory=needed.total)
        rows.append(best or RunCheck(f"{billions:g}B", tflops, 0.0, fits=False))
    return rows


def megatron_table_2() -> list[RunCheck]:
    """Tensor and pipeline parallelism against ZeRO-3 (DeepSpeed, 2021), TFLOP/s a GPU."""
    device, rows = hardware.load("a100-80gb"), []
    for heads, hidden, layers, t, p, gpus, batch, micro_batch, zero, tflops in published()["megatron_table_2"]:
        shape = gpt(layers, hidden, heads)
        base = replace(
            MEGATRON_2021,
            tensor=t,
            pipeline=p,
            data=gpus // (t * p),
            micro_batch=micro_batch,
            zero=zero,
            overlap=zero == 3,
        )
        choices = [replace(base, interleave=v) for v in (INTERLEAVES if p > 1 else (1,))]
        allowed = [one for one in choices if not violations(one, shape, batch, device.node)]
        ours, layout = max(((megatron_tflops(shape, one, device, batch), one) for one in allowed), key=lambda x: x[0])
        needed = memory.estimate(shape, layout, batch)
        name = f"{short(shape.parameters)}, {gpus} GPUs, {'ZeRO-3' if zero else 'tensor and pipeline'}"
        rows.append(RunCheck(name, tflops, ours, "", layout, needed.total, memory.fits(needed, device)))
    return rows


def korthikanti() -> list[RunCheck]:
    """530B on 2,240 A100: full recomputation, and sequence parallelism with selective recomputation."""
    device, shape, batch, rows = hardware.load("a100-80gb"), gpt(105, 20480, 128), 2240, []
    for recompute, utilisation in published()["korthikanti"].items():
        layout = replace(
            MEGATRON_2021, tensor=8, pipeline=35, data=8, interleave=3, recompute=recompute,
            sequence_parallel=recompute == "selective",
        )  # fmt: skip
        step = throughput.step(shape, layout, device, batch)
        ours = throughput.utilisation(shape, layout, device, batch, step, causal=False)
        needed = memory.estimate(shape, layout, batch)
        rows.append(RunCheck(f"530B, {recompute} recomputation", utilisation, ours, "", layout, needed.total,
                             memory.fits(needed, device)))  # fmt: skip
    return rows


def fsdp() -> list[RunCheck]:
    """Tokens a second and GPU of llm-foundry and torchtitan: ZeRO-3 with flash attention."""
    rows = []
    plain: dict[str, Any] = dict(biases=False, learned_positions=False, dropout=False)
    foundry = published()["llm_foundry"]
    for device, name, context, gpus, micro_batch, batch, full, speed in foundry["runs"]:
        hidden, layers, heads = foundry["models"][name]
        shape = Shape(layers, hidden, heads, 50_368, context, **plain)
        rows.append(_fsdp(f"MPT {name}, {context}", shape, device, gpus, micro_batch, batch, full, speed))
    for layers, hidden, heads, kv, ffn, vocab, context, micro_batch, full, speed in published()["torchtitan"]:
        shape = Shape(layers, hidden, heads, vocab, context, kv, ffn, gated=True, tied=False, **plain)
        name = f"Llama {short(shape.parameters)}, {context}"
        rows.append(_fsdp(name, shape, "a100-80gb", 64, micro_batch, 64 * micro_batch, full, speed))
    return rows


def _fsdp(
    name: str, shape: Shape, key: str, gpus: int, micro_batch: int, batch: int, full: bool, speed: float
) -> RunCheck:
    device = hardware.load(key)
    layout = Layout(data=gpus, micro_batch=micro_batch, zero=3, recompute="full" if full else "none")
    batch = max(1, batch // (gpus * micro_batch)) * gpus * micro_batch
    ours = throughput.tokens_per_second(shape, batch, throughput.step(shape, layout, device, batch)) / gpus
    needed = memory.estimate(shape, layout, batch)
    told = f"{name}, {gpus} x {key}{', full recomputation' if full else ''}"
    return RunCheck(told, speed, ours, "", layout, needed.total, memory.fits(needed, device))


def single_figures() -> list[Check]:
    """GPT-3 on one V100 and on 1,024 A100, a checkpoint of 1T parameters, the price of PaLM."""
    gpt3, palm = published()["gpt3"], published()["palm"]
    model = 6 * 175e9 * 300e9
    v100, tpu = hardware.load("v100-32gb"), hardware.load("tpu-v4")

    def years(flops: float, rate: float) -> float:
        return flops / rate / costs.YEAR

    published_rate = gpt3["v100_tflops"] * 1e12
    hours = palm["chips"] * palm["hours"]
    from_flops = costs.of_flops(palm["flops"], palm["utilisation"], palm["chips"], tpu)
    a100 = 8 * 300e9 * 175e9 / (1024 * gpt3["tflops_a_gpu"] * 1e12) / 86_400
    return [
        Check("GPT-3 175B on one V100, years", gpt3["years_on_one_v100"], years(model, 0.277 * v100.flops),
              "6 N D at 27.7% of 125 TFLOP/s (34.6), the rate that the figure implies; the paper names none"),
        Check("the same", gpt3["years_on_one_v100"], years(model, published_rate),
              "6 N D at 39 TFLOP/s, one V100 in arXiv:1909.08053"),
        Check("the same", gpt3["years_on_one_v100"], years(model * 4 / 3, published_rate),
              "8 N D (full recomputation) at 39 TFLOP/s"),
        Check("GPT-3 175B on 1,024 A100, days", gpt3["days_on_1024_a100"], a100,
              "8 T P / (n X) with the published X = 140 TFLOP/s"),
        Check("checkpoint of 1,008B parameters, TB", gpt3["checkpoint_tb_of_1008b"], 1008e9 * 14 / 1e12,
              "2 bytes of weights and 12 of optimiser state a parameter"),
        Check("PaLM 540B, million dollars", palm["usd"] / 1e6, hours * tpu.usd_per_hour / 1e6,
              "6,144 TPU v4 for 1,200 hours at $3.22, on demand"),
        Check("the same", palm["usd"] / 1e6,
              (hours + palm["further_chips"] * palm["further_hours"]) * tpu.usd_per_hour / 1e6,
              "with the further 336 hours on 3,072 chips"),
        Check("the same", palm["usd"] / 1e6, from_flops.usd / 1e6, "2.56e24 FLOPs at 46.2% of the peak: no downtime"),
    ]  # fmt: skip


def main() -> None:
    """Print every table as Markdown."""
    for law in published()["chinchilla"]:
        print(f"\n{law}: {LAWS[law].source}\n")
        rows = [
            (c.what, f"{c.published:.3g}", f"{c.ours:.3g}", percent(c.deviation),
             short(d.published, 4), short(d.ours, 4), percent(d.deviation))
            for c, d in chinchilla(law)
        ]  # fmt: skip
        print(markdown(("parameters", "FLOPs", "ours", "deviation", "tokens", "ours", "deviation"), rows))
    for name, checks in (("appendix F", appendix_f()), ("single figures", single_figures())):
        print(f"\n{name}\n")
        plain = [(c.what, f"{c.published:g}", f"{c.ours:.3g}", percent(c.deviation), c.note) for c in checks]
        print(markdown(("", "published", "ours", "deviation", ""), plain))
    for name, runs, unit in (
        ("megatron table 1", megatron_table_1(), "TFLOP/s a GPU"),
        ("megatron table 2", megatron_table_2(), "TFLOP/s a GPU"),
        ("korthikanti", korthikanti(), "utilisation"),
        ("FSDP", fsdp(), "tokens/s a GPU"),
    ):
        print(f"\n{name}\n")
        rows = [
            (r.what, f"{r.published:g}", f"{r.ours:.3g}" if r.ours < 1000 else f"{r.ours:,.0f}", percent(r.deviation),
             f"{r.memory / 1e9:.0f}", "" if r.fits else "no", r.layout.label if r.layout else "")
            for r in runs
        ]  # fmt: skip
        print(markdown(("", unit, "predicted", "deviation", "GB", "fits", "layout"), rows))


if __name__ == "__main__":
    main()
