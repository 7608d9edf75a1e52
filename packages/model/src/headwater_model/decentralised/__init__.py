"""Training in which the ranks do not wait for each other at every step.

peers.py       several worlds in one launch, and the group in which they meet
local.py       replicas that train alone and meet every H steps (local SGD, DiLoCo)
staleness.py   which worker may compute which batch, how stale a gradient is
server.py      the parameter server: owns weights and optimiser, applies gradients as they come
worker.py      pulls weights, pushes gradients
wire.py        what travels between the two
mode.py        the pretrain stage in these modes
exchange.py    bytes and staleness, for the curve and the metrics
"""
