"""The users that a service holds for its clients: found by name, and not more than it has room for.

A service calls this from one thread: its event loop's. A display takes some 50 µs, so no request
waits for another."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastgaum.errors import ConfigError, ServiceError
from fastgaum.logs.columns import show
from fastgaum.models.online import OnlineUser
from fastgaum.models.online_model import VIEWS, OnlineModel


@dataclass(frozen=True)
class Limits:
    """What a service grants its clients."""

    users: int = 10_000
    """users at a time"""
    items: int = 1_000
    """items of a display"""
    seen: int = 20_000
    """different items that one user is shown: it remembers each of them, some 200 bytes"""
    idle: float = 3_600.0
    """seconds without a call after which a user may be dropped for a new one"""

    def __post_init__(self) -> None:
        for name in ("users", "items", "seen", "idle"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")


LIMITS = Limits()
MOST_LETTERS = 1_000
"""characters of an item id"""


class ServedUsers:
    """Users of one model by name.

    Attributes:
        model: the folded model.
        limits: what clients may have.
    """

    def __init__(
        self,
        model: OnlineModel,
        limits: Limits = LIMITS,
        *,
        name: Callable[[int], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold no user yet.

        Args:
            model: whose users they are.
            limits: what clients may have.
            name: the name of the n-th user, from 1.
            clock: seconds, by which users are idle.
        """
        self.model, self.limits = model, limits
        self._name, self._clock, self._n_made = name, clock, 0
        # the user called last is last
        self._users: OrderedDict[str, tuple[OnlineUser, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._users)

    def new(self) -> str:
        """Make a user; its name.

        Raises:
            ServiceError: there is room for no further one.
        """
        now = self._clock()
        while len(self._users) >= self.limits.users:
            longest = next(iter(self._users))
            idle = now - self._users[longest][1]
            if idle < self.limits.idle:
                raise ServiceError(
                    f"{self.limits.users} users are the most at a time, and none was idle for "
                    f"{self.limits.idle:g} seconds: end users that are no longer needed",
                    429,
                )
            del self._users[longest]
        self._n_made += 1
        name = self._name(self._n_made)
        self._users[name] = OnlineUser(self.model), now
        return name

    def find(self, name: str) -> OnlineUser:
        """The user of that name. Raises ServiceError if there is none."""
        self._require(name)
        user = self._users[name][0]
        self._users[name] = user, self._clock()
        self._users.move_to_end(name)
        return user

    def end(self, name: str) -> None:
        """Forget a user. Raises ServiceError if there is none of that name."""
        self._require(name)
        del self._users[name]

    def check_display(self, user: OnlineUser, items: Sequence[str | int]) -> None:
        """Raise ServiceError for more items, or longer ids, than a display may have here; or for a
        user who has seen too many."""
        if len(items) > self.limits.items:
            raise ServiceError(
                f"a display has at most {self.limits.items} items here, got {len(items)}: ask for "
                "fewer at a time",
                413,
            )
        longest = max((len(item) for item in items if isinstance(item, str)), default=0)
        if longest > MOST_LETTERS:
            raise ServiceError(
                f"an item id has at most {MOST_LETTERS} characters here, got one of {longest}: "
                "correct it",
                413,
            )
        if user.n_items + user.n_new(items) > self.limits.seen:
            raise ServiceError(
                f"a user is shown at most {self.limits.seen} different items here, and this one "
                f"has seen {user.n_items}: end it, and make a new one",
                413,
            )

    def warm(self) -> None:
        """Score a display of a user that is then forgotten: what compiles and folds does so before
        the first client comes."""
        model = self.model
        known = model.item_ids if model.vector_rows is None else list(model.vector_rows)
        items = list(known[:2])
        context = {
            name: 0.0 if holds == "numbers" else None
            for name, holds in model.context_fields.items()
        }
        fields = {
            name: [(1.0 if name == VIEWS else 0.0) if field.rows is None else None] * len(items)
            for name, field in model.fields.items()
        }
        user = OnlineUser(model)
        user.probabilities(items, context or None, fields or None)
        user.chose(None)
        user.probabilities(
            items[:1], context or None, {k: v[:1] for k, v in fields.items()} or None
        )
        user.chose(items[0])

    def _require(self, name: str) -> None:
        if name not in self._users:
            raise ServiceError(
                f"there is no user {show(name)}: it was ended, dropped as idle, or never made; "
                "make a new one",
                404,
            )
