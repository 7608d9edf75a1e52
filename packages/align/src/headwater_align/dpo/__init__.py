"""Direct preference optimisation, the comparison beside PPO: the same preferences, no reward model, no sampling."""
