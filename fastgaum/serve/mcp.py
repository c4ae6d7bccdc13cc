"""Learned users as tools of the Model Context Protocol: an agent shows a user a slate, and the user
answers with a choice.

So an agent that is built on a language model can be tried on users learned from a log. The choice
is drawn from the model's probabilities by the seed, the user and the event: the same calls give the
same choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastgaum import __version__
from fastgaum.errors import ConfigError, FastgaumError
from fastgaum.models.online_model import OnlineModel
from fastgaum.serve.users import LIMITS, Limits, ServedUsers

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

MOST_FOUND = 100
"""items that one search returns"""
LAST_SECONDS = 3.0
"""that calls at hand have to be answered once the input has ended"""


def drawn_choice(shares: npt.NDArray[np.floating], draw: float) -> int:
    """The choice that a draw in [0, 1) makes of probabilities, shape (n,).

    >>> [drawn_choice(np.array([0.2, 0.5, 0.3]), draw) for draw in (0.1, 0.3, 0.99)]
    [0, 1, 2]
    """
    ends = np.cumsum(shares, dtype=np.float64)
    # by rounding the last end may be below 1
    return min(int(np.searchsorted(ends, draw * ends[-1], side="right")), len(shares) - 1)


def mcp_server(
    model: OnlineModel, seed: int = 0, limits: Limits = LIMITS
) -> MCPServer[dict[str, object]]:
    """A server of the tools new_user, show_slate, find_items and end_user; `run_stdio` runs it.

    Args:
        model: the folded model.
        seed: of the users' draws.
        limits: what a client may have.

    Raises:
        ConfigError: the SDK is not installed.
    """
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError:
        raise ConfigError(
            "--mcp needs the MCP SDK, which is not installed: pip install 'fastgaum[serve]'"
        ) from None
    users = ServedUsers(model, limits)
    users.warm()
    items = model.item_ids.to_list()
    folded_case = [item.casefold() for item in items]
    server: MCPServer[dict[str, object]] = MCPServer(
        "fastgaum", instructions=_instructions(model), version=__version__, log_level="WARNING"
    )

    # tools are coroutines: the SDK runs plain functions on threads, where the calls of one user
    # would overlap
    async def new_user() -> dict[str, object]:
        """Make a user who has seen and chosen nothing yet; returns its name."""
        try:
            return {"user": users.new()}
        except FastgaumError as error:
            raise ToolError(str(error)) from None

    async def show_slate(
        user: str,
        items: list[str | int],
        context: dict[str, str | int | float | bool | None] | None = None,
        fields: dict[str, list[str | int | float | bool | None]] | None = None,
        with_probabilities: bool = False,
    ) -> dict[str, object]:
        """Show a user a slate of items. The user chooses one, or nothing (null), and remembers.
        `unknown` in the answer lists ids that are no item of the catalogue.

        Args:
            user: a name that new_user gave.
            items: ids of the items, in their order; find_items finds ids.
            context: a value for each context field of the model; left out: as before.
            fields: for each field of items that the model reads, one value for each item.
            with_probabilities: also return how likely each choice was.
        """
        try:
            n_events = users.find(user).n_events
            shares = users.probabilities(user, items, context, fields)
            draw = np.random.default_rng([seed, int(user), n_events]).random()
            place = drawn_choice(shares, draw)
            choice = items[place] if place < len(items) else None
            n_events = users.chose(user, choice)
        except FastgaumError as error:
            raise ToolError(str(error)) from None
        found: dict[str, object] = {
            "choice": choice,
            "event": n_events,
            "unknown": model.unknown(items),
        }
        if with_probabilities:
            found["probabilities"] = shares[: len(items)].tolist()
            found["no_click"] = float(shares[-1]) if model.outside else None
        return found

    async def find_items(text: str = "", limit: int = 20, offset: int = 0) -> dict[str, object]:
        """Find items of the catalogue whose id contains a text, in the catalogue's order.

        Args:
            text: what the id contains, capital letters being the same as small ones; empty: all.
            limit: how many at most, up to 100.
            offset: how many are passed over first.
        """
        if not 1 <= limit <= MOST_FOUND or offset < 0:
            raise ToolError(
                f"limit is from 1 to {MOST_FOUND} and offset at least 0, got {limit} and {offset}"
            )
        wanted = text.casefold()
        found = [item for item, folded in zip(items, folded_case, strict=True) if wanted in folded]
        return {"items": found[offset : offset + limit], "found": len(found)}

    async def end_user(user: str) -> dict[str, object]:
        """Forget a user."""
        try:
            users.end(user)
        except FastgaumError as error:
            raise ToolError(str(error)) from None
        return {"users": len(users)}

    for tool in (new_user, show_slate, find_items, end_user):
        server.add_tool(tool)
    return server


def run_stdio(server: MCPServer[dict[str, object]]) -> None:
    """Serve stdin and stdout until stdin ends and every call that came is answered."""
    import anyio

    anyio.run(_serve_stdio, server)


async def _serve_stdio(server: MCPServer[dict[str, object]]) -> None:
    """What the SDK's `run("stdio")` does, with the end of the input held back: the SDK would
    drop the calls that it has not answered by then."""
    import anyio
    from mcp.server.stdio import stdio_server

    inner = server._lowlevel_server
    calls_in, calls = anyio.create_memory_object_stream[Any]()
    answers_in, answers = anyio.create_memory_object_stream[Any]()
    waiting: set[object] = set()

    async def take() -> None:
        async with calls_in:
            async for call in read:
                # a call has an id and a method; a notification has no id
                message: Any = getattr(call, "message", None)
                if getattr(message, "method", None) and getattr(message, "id", None) is not None:
                    waiting.add(message.id)
                await calls_in.send(call)
            with anyio.move_on_after(LAST_SECONDS):
                while waiting:
                    await anyio.sleep(0.01)

    async def give() -> None:
        async with write:
            async for answer in answers:
                await write.send(answer)
                waiting.discard(getattr(answer.message, "id", None))

    async with stdio_server() as (read, write), anyio.create_task_group() as both:
        both.start_soon(take)
        both.start_soon(give)
        await inner.run(calls, answers_in, inner.create_initialization_options())


def _instructions(model: OnlineModel) -> str:
    parts = [
        f"Simulated users who were learned from a log of {len(model.item_ids)} items. Make one "
        "with new_user, then call show_slate: the user chooses an item of the slate"
        + (", or nothing (null)." if model.outside else "."),
        "A user remembers what it was shown and chose. find_items finds ids of items.",
    ]
    if model.context_fields:
        names = ", ".join(f"{name} ({holds})" for name, holds in model.context_fields.items())
        parts.append(f"A slate has a context: {names}.")
    lacking = [name for name in model.fields if name not in model.of_items]
    if lacking:
        parts.append(f"A slate needs these fields of its items: {', '.join(lacking)}.")
    return " ".join(parts)
