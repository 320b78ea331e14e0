"""Runs on this machine, and checks of it."""
