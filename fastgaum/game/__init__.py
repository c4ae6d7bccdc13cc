"""Losses, the game, its loop, checkpoints."""
