"""Zero-shot scores on task clusters that were kept out of tuning."""
