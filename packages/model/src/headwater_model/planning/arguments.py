"""Options of the commands `budget`, `layouts` and `buy`; nothing heavy is imported here."""

from __future__ import annotations

import argparse
from pathlib import Path

from .scaling import LAWS, PARAMETRIC
from .tables import count, quantity


def budget(parser: argparse.ArgumentParser) -> None:
    """Options of `headwater-model budget`."""
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--flops", type=quantity, metavar="C", help="training FLOPs, as 3e23")
    one.add_argument("--days", type=quantity, metavar="D", help="days on --devices")
    one.add_argument("--usd", type=quantity, metavar="USD", help="money for rented devices")
    one.add_argument("--tokens", type=quantity, metavar="T", help="tokens to train on, as 300B")
    one.add_argument("--parameters", type=quantity, metavar="N", help="model size, as 7B")
    parser.add_argument("--devices", type=count, default=8, metavar="N", help="devices (default: 8)")
    parser.add_argument(
        "--utilisation", type=float, default=0.4, metavar="U", help="of the devices' peak, by the model's FLOPs (0.4)"
    )
    parser.add_argument(
        "--law", choices=sorted(LAWS), default="chinchilla-1", help="sizes the plan (default: chinchilla-1)"
    )
    parser.add_argument(
        "--loss-law", choices=sorted(PARAMETRIC), default="besiroglu", help="predicts losses (default: besiroglu)"
    )
    parser.add_argument("--data", type=quantity, metavar="U", help="different tokens at hand, if they are limited")
    parser.add_argument("--served", type=quantity, metavar="S", help="tokens that the model will process in its life")
    _device(parser)


def layouts(parser: argparse.ArgumentParser) -> None:
    """Options of `headwater-model layouts`."""
    for name, told in (("layers", "layers"), ("hidden", "width"), ("heads", "query heads")):
        parser.add_argument(f"--{name}", type=count, required=True, metavar="N", help=told)
    parser.add_argument("--kv-heads", type=count, default=0, metavar="N", help="key and value heads (default: as many)")
    parser.add_argument(
        "--ffn", type=count, default=0, metavar="N", help="width of the MLP (default: 8/3 or 4 x hidden)"
    )
    parser.add_argument("--vocab", type=count, default=51200, metavar="N", help="token ids (default: 51200)")
    parser.add_argument("--context", type=count, default=2048, metavar="N", help="tokens a sequence (default: 2048)")
    parser.add_argument("--tied", action="store_true", help="one matrix for input and output embeddings")
    parser.add_argument(
        "--gpt2", action="store_true", help="GPT-2's layer (plain MLP, biases, dropout) instead of Llama's"
    )
    parser.add_argument("--devices", type=count, required=True, metavar="N", help="devices")
    parser.add_argument("--batch", type=count, required=True, metavar="N", help="sequences a step")
    parser.add_argument("--tokens", type=quantity, metavar="T", help="tokens to train on, for days and price")
    parser.add_argument("--zero", type=int, nargs="+", default=[1], choices=range(4), help="ZeRO stages (default: 1)")
    parser.add_argument("--max-context", type=count, default=1, metavar="N", help="context-parallel ranks (default: 1)")
    parser.add_argument("--unfused", action="store_true", help="attention without flash attention")
    parser.add_argument("--top", type=count, default=10, metavar="N", help="layouts to show (default: 10)")
    _device(parser)


def buy(parser: argparse.ArgumentParser) -> None:
    """Options of `headwater-model buy`."""
    parser.add_argument("--params", type=Path, metavar="FILE", help="YAML with a section `buy`")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace an assumption, as api.usd_in=0.5"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="h100-sxm", metavar="NAME", help="of hardware.yaml (default: h100-sxm)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a figure of the device, as tflops=1.2"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
