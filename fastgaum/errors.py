"""Errors that a user can cause: the rule, the values and the cure. The command line exits with
2."""

from __future__ import annotations

import difflib
import errno
import numbers
import os
from collections.abc import Iterable


class FastgaumError(Exception):
    """Base of every error that FastGAUM raises for a user's mistake."""


class LogFormatError(FastgaumError):
    """A log breaks the schema: a missing column, two choices in one event, an empty display …"""


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


class SeenUsersError(FastgaumError):
    """A model is to be tested on users that trained it."""


class ActionError(FastgaumError):
    """An action, mask or seed of an environment has another type, shape or range."""


class RenderModeError(ConfigError, TypeError):
    """An environment has no such render mode. Stable-Baselines3 goes on without one after a
    TypeError."""


class NumericsError(FastgaumError):
    """A loss, gradient or score is not finite."""


class StepRefusedError(NumericsError):
    """A training step has a loss or a gradient that is not finite, and was not made."""


class LostPeerError(FastgaumError):
    """Another process of the same training is gone."""


def type_name(value: object) -> str:
    """The package and name of a value's type.

    >>> type_name(3), type_name(LogFormatError())
    ('int', 'fastgaum.LogFormatError')
    """
    package, name = type(value).__module__.partition(".")[0], type(value).__name__
    return name if package == "builtins" else f"{package}.{name}"


def as_given(value: object) -> str:
    """A value as a message shows it: text and numbers as they are written, of others the type.

    >>> as_given("x"), as_given(3), as_given([1])
    ("'x'", '3', 'a list')
    """
    if value is None or isinstance(value, str | int | float | os.PathLike):
        return repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
    return f"a {type_name(value)}"


def no_log(value: object) -> ConfigError:
    """The error for what is given instead of a log."""
    return ConfigError(
        f"a log is required, got {as_given(value)}: fastgaum.load makes one of a name or a path, "
        "fastgaum.read_log of a frame"
    )


def require_path(what: str, value: object) -> None:
    """Raise ConfigError unless a value is a path that a file could have."""
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{what} is {as_given(value)}, a path is required")
    try:
        os.lstat(value)
    except ValueError:
        raise ConfigError(
            f"{what} is {as_given(value)}, a path without the character NUL is required"
        ) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise too_long(os.fspath(value)) from None


def too_long(path: str | bytes) -> ConfigError:
    """The error for a path that is longer than the system allows."""
    return ConfigError(
        f"the path {os.fsdecode(path)[:60]!r}… has a name of more than the 255 bytes that a file's "
        "name may have, or is longer than the system allows: give a shorter one"
    )


def require_type(what: str, value: object, kind: type) -> None:
    """Raise ConfigError unless a value is of a class."""
    if not isinstance(value, kind):
        raise ConfigError(f"{what} is {as_given(value)}, a {kind.__name__} is required")


def require_whole(what: str, value: object, least: int = 0) -> None:
    """Raise ConfigError unless a value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise ConfigError(
            f"{what} is {as_given(value)}, a whole number of at least {least} is required"
        )


def require_known(what: str, value: object, known: Iterable[str]) -> None:
    """Raise ConfigError unless a value is one of some words."""
    words = list(known)
    if not isinstance(value, str) or value not in words:
        raise ConfigError(
            f"{what} is {as_given(value)}, one of {', '.join(words)} is "
            f"required{did_you_mean(str(value), words)}"
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or an empty string.

    >>> did_you_mean("iten", ["item", "session"])
    "; did you mean 'item'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
