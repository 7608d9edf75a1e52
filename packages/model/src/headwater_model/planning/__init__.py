"""From a budget to a plan that can be checked: pure functions, no training, no torch.

scaling.py       compute-optimal size and tokens: Chinchilla's three approaches, Kaplan, the refit of approach 3
repetition.py    what repeated tokens are worth
overtraining.py  a smaller model trained for longer: loss, FLOPs, inference saved, break-even
shapes.py        parameters and FLOPs of a transformer
hardware.py      accelerators (hardware.yaml, every figure with its source)
layouts.py       tensor x pipeline x context x data: rules and enumeration
memory.py        bytes on the most loaded device
communication.py bytes of every dimension over the link that it uses
throughput.py    seconds of a step, from a roofline
ranking.py       the layouts that fit, fastest first, with reasons
costs.py         days, energy, money
budget.py        `headwater-model budget`
buy.py           `headwater-model buy`: API, fine-tuned model, own model
validation.py    published runs against these predictions, the tables of docs/planning.md
"""
