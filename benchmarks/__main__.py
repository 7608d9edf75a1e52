"""`python -m benchmarks NAME [--quick]`: run one benchmark, print its table, write results/NAME.json."""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

from benchmarks import frame

HELPERS = (
    "__main__", "frame", "peers", "data_work", "privacy_work", "tokenizer_work", "decentralised_work", "model_work",
    "recipe_work", "eval_work", "align_work",
)  # fmt: skip
FOLDER = Path(__file__).parent
NAMES = sorted(m.name for m in pkgutil.iter_modules([str(FOLDER)]) if m.name not in HELPERS)


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="one repetition on small input: to see that it runs")
    args = parser.parse_args()
    module = importlib.import_module(f"benchmarks.{args.name}")
    print((module.__doc__ or "").strip(), end="\n\n")
    rows = module.run(args.quick)
    print(frame.table(rows))
    # A quick run shows that the benchmark works; only a full one is a result.
    if not args.quick:
        print(f"\nwritten: {frame.write(FOLDER / 'results' / f'{args.name}.json', rows)}")
    return 0


sys.exit(main())
