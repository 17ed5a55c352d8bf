"""Measurements: always a ratio or a difference against a baseline of the same run, never a verdict in a test."""
