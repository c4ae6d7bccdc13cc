"""What tells one log from another: a sha256 over its arrays, items and categories."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

if TYPE_CHECKING:
    from fastgaum.logs.log import SessionLog

_IDS_AT_ONCE = 65_536


class Digests:
    """A sha256 per array of a log, fed with its parts in order: what tells one log from another.

    A log in memory and the same log in shards have one fingerprint: offsets are counted as lengths,
    and users as 64-bit numbers, so that neither depends on where the log is cut."""

    def __init__(self) -> None:
        self._by_name: dict[str, hashlib._Hash] = {}

    def add(self, part: SessionLog, first_user: int = 0) -> None:
        """Feed the next sessions; `first_user` is added to their user codes."""
        arrays: dict[str, npt.NDArray[np.generic] | None] = {
            "sessions": np.diff(part.session_offsets),
            "displays": np.diff(part.display_offsets),
            "items": part.items,
            "choices": part.choices,
            "split": part.split,
            "users": np.asarray(part.users, dtype=np.int64) + first_user,
            "views": part.views,
        }
        arrays |= {f"field {name}": values for name, values in part.candidate_fields.items()}
        arrays |= {f"event field {name}": values for name, values in part.event_fields.items()}
        arrays |= {f"user field {name}": values for name, values in part.user_fields.items()}
        if part.actions is not None:
            arrays["actions"] = np.diff(part.actions.offsets)
            arrays["items of actions"] = part.actions.items
            arrays["kinds of actions"] = part.actions.kinds
        for name, array in arrays.items():
            if array is not None:
                self._digest(name).update(np.ascontiguousarray(array).data)
        _feed_ids(self._digest("session ids"), part.session_ids)

    def values(self) -> dict[str, str]:
        """Each array's sha256, in hexadecimal."""
        return {name: digest.hexdigest() for name, digest in self._by_name.items()}

    def fingerprint(self, log: SessionLog) -> str:
        """The fingerprint of the log whose parts were fed; `log` is any log with its items and
        categories."""
        return fingerprint_of(self.values(), log)

    def _digest(self, name: str) -> hashlib._Hash:
        return self._by_name.setdefault(name, hashlib.sha256())


def fingerprint_of(values: Mapping[str, str], log: SessionLog) -> str:
    """Return a log's fingerprint: of its arrays' digests (`Digests.values`), and of the items and
    categories of `log`."""
    whole = hashlib.sha256()
    for name, value in sorted(values.items()):
        whole.update(f"{name} {value}\n".encode())
    for name, array in sorted(log.item_fields.items()):
        whole.update(name.encode())
        whole.update(np.ascontiguousarray(array).data)
    for name, vectors in sorted(log.item_vectors.items()):
        whole.update(f"vectors {name} {vectors.shape[1]}".encode())
        whole.update(np.ascontiguousarray(vectors).data)
    if log.grid:
        whole.update(f"grid {log.grid}".encode())
    _feed_ids(whole, log.item_ids)
    if log.actions is not None:
        _feed_ids(whole, log.actions.kind_names)
    for name, categories in sorted(log.categories.items()):
        whole.update(name.encode())
        _feed_ids(whole, categories)
    return whole.hexdigest()


def split_digest(split: npt.NDArray[np.int8]) -> str:
    """The digest of a split alone, shape (n_sessions,): what changes where a log is split anew."""
    return hashlib.sha256(np.ascontiguousarray(split).data).hexdigest()


def _feed_ids(digest: hashlib._Hash, ids: pl.Series) -> None:
    for start in range(0, len(ids), _IDS_AT_ONCE):
        digest.update(("\0".join(ids.slice(start, _IDS_AT_ONCE).to_list()) + "\0").encode())
