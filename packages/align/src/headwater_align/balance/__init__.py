"""Demonstrations in which groups stand beside the same words equally often; docs/align-bias.md."""
