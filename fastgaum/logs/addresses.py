"""Folders at an address (https, s3, gs, …), whose files are read as a whole."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from typing import TypeGuard

import fsspec  # type: ignore[import-untyped,unused-ignore]

from fastgaum.errors import LogFormatError

_SIGN = "://"
WAIT = 60
"""seconds without an answer"""


def is_address(text: object) -> TypeGuard[str]:
    """Whether a text names a place that is no path.

    >>> is_address("s3://shop/log"), is_address("runs/log")
    (True, False)
    """
    return isinstance(text, str) and _SIGN in text


@dataclass(frozen=True)
class Address:
    """A folder or a file at an address; `/` names what is in a folder."""

    text: str

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.text.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.text.rstrip("/").rpartition("/")[2]

    def read_bytes(self) -> bytes:
        """The contents of the file. Raises OSError where it is not there or cannot be reached,
        LogFormatError where the package for its kind of address is absent."""
        try:
            # fsspec needs another package for these two, python does not
            if self.text.startswith(("http://", "https://")):
                # log.json holds the sum of every other file
                with urllib.request.urlopen(self.text, timeout=WAIT) as answer:  # noqa: TID251
                    return bytes(answer.read())
            with fsspec.open(self.text, "rb") as file:
                return bytes(file.read())
        except OSError:
            raise
        except (ImportError, ValueError) as error:
            raise LogFormatError(
                f"'{self.text}' cannot be opened ({error}): install the package that it names, or "
                "copy the folder"
            ) from None
        # each kind of storage has errors of its own
        except Exception as error:
            raise OSError(str(error) or type(error).__name__) from error
