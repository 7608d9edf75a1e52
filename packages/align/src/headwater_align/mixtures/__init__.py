"""Instruction mixtures: structured tasks, their phrasings, and how much of each."""
