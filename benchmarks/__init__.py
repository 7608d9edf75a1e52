"""Side-by-side runs against peers: `python -m benchmarks NAME [--quick]`.

`frame` is what a benchmark is made of; every other module here is one benchmark, with a function
`run(quick: bool) -> list[Row]`.
"""
