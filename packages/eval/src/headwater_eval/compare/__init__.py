"""Runs side by side on the same items, with tests that know that they are the same."""
