"""Logs: read, checked, packed, split, turned into bags and batches."""
