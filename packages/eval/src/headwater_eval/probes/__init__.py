"""Probes: short prompts by expected behaviour, as a test suite of a model. `probes.yaml` says what is expected."""
