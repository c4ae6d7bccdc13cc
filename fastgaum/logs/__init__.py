"""Logs: read from files, checked, packed, split, audited; a registry of public ones. Without
torch."""
