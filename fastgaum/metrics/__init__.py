"""Metrics with their definitions, denominators, tie rules and intervals."""
