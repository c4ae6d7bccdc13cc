"""The good files that attacks spoil."""

from tests.cli.conftest import frame, log_file, saved, seeds, trained

__all__ = ["frame", "log_file", "saved", "seeds", "trained"]
