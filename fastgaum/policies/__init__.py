"""Recommendation policies: what to show a user next, from the state and a candidate pool."""
