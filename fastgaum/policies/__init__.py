"""Policies, and what they earn in a world."""
