"""Errors that a user can cause. Each says the rule, the values and the cure; the command line turns
them into exit 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FastgaumError(Exception):
    """Base of every error that FastGAUM raises for a user's mistake."""


class LogFormatError(FastgaumError):
    """A log breaks the schema: a missing column, two choices in one event, an empty display set
    …"""


class ConfigError(FastgaumError):
    """A configuration value is unknown, of the wrong type, or impossible."""


class DatasetError(FastgaumError):
    """A registry name, a download or a local copy is not what it should be."""


class CheckpointError(FastgaumError):
    """A run folder or a model file is damaged, incomplete, or made by another version."""


class OutputError(FastgaumError):
    """An output cannot be written."""


class FeatureMismatchError(FastgaumError):
    """A model meets a log whose fields differ from those it was trained on."""


class ActionError(FastgaumError):
    """An environment is used against its contract: an action, a mask or a seed of another type,
    shape or range."""


class ServiceError(FastgaumError):
    """A service is asked for what it does not have, or does not grant.

    Attributes:
        status: the status of an HTTP answer that says so, from 400 to 499.
    """

    def __init__(self, says: str, status: int) -> None:
        super().__init__(says)
        self.status = status


class NumericsError(FastgaumError):
    """A loss, gradient or score is not finite."""


class StepRefusedError(NumericsError):
    """A training step has a loss or a gradient that is not finite: it moved no weight and no
    optimiser state."""


class RefusedByAllError(StepRefusedError):
    """A step that every process of a training has refused alike: none waits for another."""


class LostPeerError(FastgaumError):
    """Another process of the same training is gone."""


def type_name(value: object) -> str:
    """What a message calls a value's type, with the package that it is of.

    >>> type_name(3), type_name(LogFormatError())
    ('int', 'fastgaum.LogFormatError')
    """
    package, name = type(value).__module__.partition(".")[0], type(value).__name__
    return name if package == "builtins" else f"{package}.{name}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or an empty string.

    >>> did_you_mean("iten", ["item", "session"])
    "; did you mean 'item'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
