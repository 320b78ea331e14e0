"""Sweeps: what is tried, what was found. No Ray here."""
