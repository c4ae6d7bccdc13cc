"""The users that a service holds for its clients: found by name, and not more than it has room for.

A service calls this from one thread: its event loop's. A display takes some 50 µs, so no request
waits for another."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fastgaum.errors import ConfigError, ServiceError
from fastgaum.logs.columns import show
from fastgaum.logs.log import FloatArray
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
    megabytes: int = 2_000
    """memory of all users together, by their own count (`OnlineUser.n_bytes`)"""
    idle: float = 3_600.0
    """seconds without a call after which a user may be dropped for a new one"""

    def __post_init__(self) -> None:
        for name in ("users", "items", "seen", "megabytes", "idle"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")


LIMITS = Limits()


@dataclass
class _Held:
    """A user of a service."""

    user: OnlineUser
    called: float
    """when, by the service's clock"""
    n_bytes: int = 0
    """after that call"""


MOST_LETTERS = 1_000
"""characters of an item id"""


class ServedUsers:
    """Users of one model by name.

    Attributes:
        model: the folded model.
        limits: what clients may have.
        n_bytes: memory of all users together.
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
        self._users: OrderedDict[str, _Held] = OrderedDict()
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._users)

    def new(self) -> str:
        """Make a user; its name.

        Raises:
            ServiceError: there is room for no further one.
        """
        while len(self._users) >= self.limits.users:
            self._drop_idle(f"{self.limits.users} users are the most at a time")
        self._require_memory()
        self._n_made += 1
        name = self._name(self._n_made)
        held = self._users[name] = _Held(OnlineUser(self.model), self._clock())
        self._count(held)
        return name

    def find(self, name: str) -> OnlineUser:
        """The user of that name. Raises ServiceError if there is none."""
        self._require(name)
        held = self._users[name]
        held.called = self._clock()
        self._users.move_to_end(name)
        return held.user

    def end(self, name: str) -> None:
        """Forget a user. Raises ServiceError if there is none of that name."""
        self._require(name)
        self.n_bytes -= self._users.pop(name).n_bytes

    def probabilities(
        self,
        name: str,
        items: Sequence[str | int],
        context: Mapping[str, object] | None,
        fields: Mapping[str, Sequence[object]] | None,
    ) -> FloatArray:
        """What a display is to a user, as `OnlineUser.probabilities` says.

        Raises:
            ServiceError: there is no such user, the display is more than one may be here, or the
                users have no memory left.
            ConfigError, NumericsError: as there.
        """
        user = self.find(name)
        self.check_display(user, items)
        self._require_memory()
        try:
            return user.probabilities(items, context, fields)
        finally:
            self._count(self._users[name])

    def chose(self, name: str, item: str | int | None) -> int:
        """Tell a user's choice, as `OnlineUser.chose` says; return how many it has made. Raises
        ServiceError if there is no such user; ConfigError."""
        user = self.find(name)
        user.chose(item)
        self._count(self._users[name])
        return user.n_events

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

    def _count(self, held: _Held) -> None:
        """Count what a user takes after a call."""
        self.n_bytes -= held.n_bytes
        held.n_bytes = held.user.n_bytes
        self.n_bytes += held.n_bytes

    def _require_memory(self) -> None:
        """Drop idle users until there is memory. Raises ServiceError if there is none left."""
        most = self.limits.megabytes
        while self.n_bytes >= most * 1_000_000:
            self._drop_idle(f"all users together take {most} MB, the most here")

    def _drop_idle(self, full: str) -> None:
        """Drop the user without a call for the longest time. Raises ServiceError if that was not
        long ago."""
        longest = next(iter(self._users))
        if self._clock() - self._users[longest].called < self.limits.idle:
            raise ServiceError(
                f"{full}, and none was idle for {self.limits.idle:g} seconds: end users that are "
                "no longer needed",
                429,
            )
        self.end(longest)

    def _require(self, name: str) -> None:
        if name not in self._users:
            raise ServiceError(
                f"there is no user {show(name)}: it was ended, dropped as idle, or never made; "
                "make a new one",
                404,
            )
