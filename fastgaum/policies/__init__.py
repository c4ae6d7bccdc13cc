"""Policies: what a user is shown, learned or not, and what that earns in a world."""
