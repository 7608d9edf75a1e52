"""The reward model: from rankings to a number for an answer (InstructGPT, arXiv:2203.02155, section 3.5).

data.py makes micro-batches; stage.py trains; normalise.py sets the scale; judging.py, length.py and calibration.py say
what the model is worth on held-out comparisons.
"""
