"""Losses, the game, the training loop, checkpoints and run folders."""
