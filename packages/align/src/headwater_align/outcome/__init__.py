"""What alignment gained and what it cost: every model on the same held-out prompts, the reward model as the judge."""
