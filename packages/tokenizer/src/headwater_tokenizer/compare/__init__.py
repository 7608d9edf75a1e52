"""Many tokenizers, measured side by side on the same text."""
