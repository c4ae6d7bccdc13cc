"""The tools of learned users, called by the SDK's own client: in this process, and over the command's
stdin and stdout."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any
from zlib import crc32

import anyio
import numpy as np
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from fastgaum.live_users.online import OnlineModel, OnlineUser
from fastgaum.serve.mcp import mcp_server
from tests.builders import random_log
from tests.live_users.online_users import IDENTITY, fitted, model_of
from tests.worlds.simulated import naive_choice

CONTEXT = {"hour": 0.5, "kind": "i1", "page": "i2", "target": "i3"}
Call = tuple[str, dict[str, Any]]


def called(server: Any, calls: list[Call]) -> list[Any]:
    """What the tools answer, in order: a value, or the text of an error."""

    async def run() -> list[Any]:
        answers: list[Any] = []
        async with Client(server) as client:
            for name, arguments in calls:
                result = await client.call_tool(name, arguments)
                if result.is_error:
                    answers.append(result.content[0].text)  # type: ignore[union-attr]
                else:
                    answers.append(result.structured_content)
        return answers

    return anyio.run(run)


def of_model(name: str) -> OnlineModel:
    return model_of(name).user().model


def show(user: str, items: list[str], **more: Any) -> Call:
    return "show_slate", {"user": user, "items": items, "with_probabilities": True, **more}


def test_a_user_chooses_by_the_seed_and_remembers() -> None:
    model = of_model("context, network")
    slates = [["i1", "i2", "i3"], ["i4", "i5"], ["i1", "i9", "new"]]
    calls = [("new_user", {}), *(show("1", slate, context=CONTEXT) for slate in slates)]
    made, *shown = called(mcp_server(model, seed=3), calls)
    assert made == {"user": "1"}
    user = OnlineUser(model)
    for event, (slate, answer) in enumerate(zip(slates, shown, strict=True)):
        shares = user.probabilities(slate, CONTEXT)
        np.testing.assert_allclose([*answer["probabilities"], answer["no_click"]], shares)
        assert answer["unknown"] == [item for item in slate if item == "new"]
        key = np.random.SeedSequence([3, 1, event]).generate_state(1, np.uint64)
        numbers = [crc32(item.encode()) >> 1 for item in slate]
        place = naive_choice(int(key[0]), numbers, shares[:-1], float(shares[-1]))
        assert answer["choice"] == [*slate, None][place]
        user.chose(answer["choice"])
    assert called(mcp_server(model, seed=3), calls)[1:] == shown
    many = [("new_user", {}), *(show("1", slates[1], context=CONTEXT) for _ in range(40))]
    one, other = (called(mcp_server(model, seed=seed), many)[1:] for seed in (0, 1))
    assert [answer["choice"] for answer in one] != [answer["choice"] for answer in other]
    assert len({answer["choice"] for answer in one}) > 1


def test_an_argument_that_a_tool_does_not_have_is_refused() -> None:
    """The SDK passes over it: a context under a wrong name would be none."""
    calls: list[Call] = [
        ("new_user", {}),
        ("show_slate", {"user": "1", "items": ["i1", "i2"], "contxt": CONTEXT}),
        show("1", ["i1", "i2"], context=CONTEXT),
    ]
    _, refused, answered = called(mcp_server(of_model("context, network"), seed=3), calls)
    assert "contxt" in refused
    assert "not permitted" in refused
    assert answered["event"] == 1, "a refused call showed the user a slate"


def test_calls_of_one_user_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that a client makes at once are answered one after the other, by one thread."""
    threads: set[int] = set()
    scored = OnlineUser.probabilities

    def noted(self: OnlineUser, *given: Any) -> Any:
        threads.add(threading.get_ident())
        return scored(self, *given)

    server = mcp_server(of_model("relations, two layers"))
    monkeypatch.setattr(OnlineUser, "probabilities", noted)
    events: list[int] = []

    async def run() -> None:
        async with Client(server) as client:
            await client.call_tool("new_user", {})

            async def ask() -> None:
                name, arguments = show("1", ["i1", "i2", "i3"])
                answer = await client.call_tool(name, arguments)
                assert answer.structured_content is not None
                events.append(answer.structured_content["event"])

            async with anyio.create_task_group() as at_once:
                for _ in range(20):
                    at_once.start_soon(ask)

    anyio.run(run)
    assert sorted(events) == list(range(1, 21))
    assert threads == {threading.get_ident()}


def test_items_are_found_by_their_ids() -> None:
    model = of_model("relations, two layers")
    found, second, wrong, no_such = called(
        mcp_server(model),
        [
            ("find_items", {"text": "I1"}),
            ("find_items", {"limit": 2, "offset": 1}),
            ("find_items", {"limit": 1_000}),
            ("find_items", {"text": "nothing of that name"}),
        ],
    )
    every = model.item_ids.to_list()
    assert found == {"items": [item for item in every if "i1" in item], "found": 3}
    assert second == {"items": every[1:3], "found": len(every)}
    assert "limit is from 1 to 100 and offset at least 0, got 1000" in wrong
    assert no_such == {"items": [], "found": 0}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (show("9", ["i1"]), "there is no user '9'"),
        (show("1", ["i1"]), "the model reads the context fields hour, kind, page, target"),
        (("show_slate", {"user": "1"}), "items"),
        (("end_user", {"user": "2"}), "there is no user '2'"),
    ],
)
def test_what_is_wrong_is_said_to_the_agent(call: Call, says: str) -> None:
    server = mcp_server(of_model("context, network"))
    good = show("1", ["i1"], context=CONTEXT)
    _, answer, after, ended = called(
        server, [("new_user", {}), call, good, ("end_user", {"user": "1"})]
    )
    assert says in answer
    assert after["event"] == 1
    assert ended == {"users": 0}


def test_the_agent_is_told_what_a_slate_needs() -> None:
    async def told(name: str) -> str | None:
        async with Client(mcp_server(of_model(name))) as client:
            tools = (await client.list_tools()).tools
            assert {tool.name for tool in tools} == {
                *("new_user", "show_slate", "find_items", "end_user")
            }
            assert all(tool.description for tool in tools)
            return client.instructions

    assert "hour (numbers), kind (categories), page (items)" in str(
        anyio.run(told, "context, network")
    )
    assert "Fields of its items: brand, shelf, views, price, size" in str(
        anyio.run(told, "fields, views, positions")
    )


def test_the_command_speaks_the_protocol_and_nothing_else(tmp_path: Path) -> None:
    """A line on stdout that is no message would be an error of the client."""
    model = fitted(random_log(4, 24, no_click=0.3), **IDENTITY)
    model.save(tmp_path / "model.safetensors")
    command = ["-m", "fastgaum", "serve", str(tmp_path / "model.safetensors"), "--mcp"]
    over_stdio = StdioServerParameters(command=sys.executable, args=command)
    calls = [("new_user", {}), show("1", ["i1", "i2"]), show("1", ["i3", "i4"])]
    online = model.user().model
    assert called(stdio_client(over_stdio), calls) == called(mcp_server(online), calls)
