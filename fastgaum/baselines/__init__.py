"""Rows that the learned model must beat: floors and published models."""
