"""Side-by-side runs against peers: `python -m benchmarks NAME [--quick]`.

`frame` is what a benchmark is made of, `peers` runs the peers in environments of their own, `data_work` is the work
that `data` times; every other module here is one benchmark, with a function `run(quick: bool) -> list[Row]`.
"""
