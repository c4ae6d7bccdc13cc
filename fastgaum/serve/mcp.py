"""Learned users as tools of the Model Context Protocol: an agent shows a user a slate, and the user
answers with a choice, drawn by the seed, the user and the event."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool

from fastgaum.errors import FastgaumError
from fastgaum.kernels.shown_slates import draw_choices
from fastgaum.live_users.online import OnlineModel, OnlineUser

MOST_FOUND = 100
"""items that one search returns"""
Value = str | int | float | bool | None


def mcp_server(model: OnlineModel, seed: int = 0) -> MCPServer[dict[str, object]]:
    """A server of the tools new_user, show_slate, find_items and end_user; its `run` serves stdio.

    Args:
        model: the model for single displays.
        seed: of the users' draws.
    """
    users: dict[str, OnlineUser] = {}
    numbers = itertools.count(1)

    def find(user: str) -> OnlineUser:
        if user not in users:
            raise ToolError(f"there is no user {user!r}: it was ended, or never made")
        return users[user]

    # tools are coroutines: the SDK runs plain functions on threads, where calls would overlap
    async def new_user() -> dict[str, object]:
        """Make a user who has seen and chosen nothing yet; returns its name."""
        name = str(next(numbers))
        users[name] = OnlineUser(model)
        return {"user": name}

    async def show_slate(
        user: str,
        items: list[str | int],
        context: dict[str, Value] | None = None,
        fields: dict[str, list[Value]] | None = None,
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
        shown = find(user)
        try:
            shares = shown.probabilities(items, context, fields)
        except FastgaumError as error:
            # the SDK sends the agent the text of no other error
            raise ToolError(str(error)) from None
        key = np.random.SeedSequence([seed, int(user), shown.n_events]).generate_state(1, np.uint64)
        numbers = np.array([crc32(str(item).encode()) >> 1 for item in items], np.int32)
        ends, chosen = np.array([0, len(items)], np.int32), np.empty(1, np.int32)
        none = shares[len(items) :].sum(keepdims=True)
        draw_choices(ends, numbers, shares[: len(items)], none, key, chosen)
        choice = None if chosen[0] < 0 else items[chosen[0]]
        unknown = shown.unknown
        shown.chose(choice)
        found: dict[str, object] = {"choice": choice, "event": shown.n_events, "unknown": unknown}
        if with_probabilities:
            found["probabilities"] = shares[: len(items)].tolist()
            found["no_click"] = shares[-1].item() if model.networks.no_click else None
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
        found = [item for item in model.item_ids if text.casefold() in item.casefold()]
        return {"items": found[offset : offset + limit], "found": len(found)}

    async def end_user(user: str) -> dict[str, object]:
        """Forget a user."""
        find(user)
        del users[user]
        return {"users": len(users)}

    tools = [_strict(tool) for tool in (new_user, show_slate, find_items, end_user)]
    return MCPServer(
        "fastgaum", instructions=_instructions(model), log_level="WARNING", tools=tools
    )


def _strict(function: Callable[..., Any]) -> Tool:
    """A tool that refuses arguments it does not have; the SDK's own pass over them."""
    tool = Tool.from_function(function)
    arguments = tool.fn_metadata.arg_model
    arguments.model_config["extra"] = "forbid"
    arguments.model_rebuild(force=True)
    tool.parameters = arguments.model_json_schema(by_alias=True)
    return tool


def _instructions(model: OnlineModel) -> str:
    nothing = ", or nothing (null)" if model.networks.no_click else ""
    context = ", ".join(f"{name} ({holds})" for name, holds in model.context_fields.items())
    fields = ", ".join(name for name in model.fields if name not in model.of_items)
    return (
        f"Simulated users who were learned from a log of {len(model.item_ids)} items. Make one "
        f"with new_user, then call show_slate: the user chooses an item of the slate{nothing}. A "
        "user remembers what it was shown and chose. find_items finds ids of items. A slate's "
        f"context: {context or 'none'}. Fields of its items: {fields or 'none'}."
    )
