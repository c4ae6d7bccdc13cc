"""The HTTP service, asked by a client over a socket."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from fastgaum.cli.app import main
from fastgaum.errors import ConfigError, ServiceError
from fastgaum.models.online import OnlineUser
from fastgaum.models.user_model import UserModel
from fastgaum.serve.http import MOST_BYTES, http_app, open_socket
from fastgaum.serve.users import Limits, ServedUsers
from tests.builders import random_log
from tests.models.online_users import model_of
from tests.worlds.test_learned_world import IDENTITY, fitted


class Client:
    """What a program without our code does."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"content-type": kind}
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.load(refused)


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, Client]]:
    """Of a model that reads context, one that reads fields, and one with room for two users."""
    found, running = {}, []
    for name, limits in (
        ("context, network", Limits(items=20)),
        ("fields, views, positions", Limits()),
        ("relations, two layers", Limits(users=2)),
        ("actions", Limits()),
    ):
        listening = open_socket("127.0.0.1", 0)
        config = uvicorn.Config(
            http_app(model_of(name).user().model, limits), log_level="warning", lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((server, thread, listening))
        found[name.partition(",")[0]] = Client(f"http://127.0.0.1:{listening.getsockname()[1]}")
    yield found
    for server, thread, listening in running:
        server.should_exit = True
        thread.join(30)
        listening.close()


CONTEXT = {"hour": 0.5, "kind": "i1", "page": "i2", "target": "i3"}


def test_a_user_over_http_is_the_one_in_python(clients: dict[str, Client]) -> None:
    client, user = clients["context"], model_of("context, network").user()
    status, health = client.ask("GET", "/health")
    assert (status, health["status"]) == (200, "ok")
    _, about = client.ask("GET", "/model")
    assert about["context"] == user.model.context_fields
    assert about["no_click"] is True
    status, made = client.ask("POST", "/users")
    assert status == 201
    of_user = f"/users/{made['user']}"
    for items, chosen in ((["i1", "i2", "new"], "i2"), (["i4", "i1"], None), (["i9"], "i9")):
        asked = {"items": items, "context": CONTEXT}
        status, found = client.ask("POST", f"{of_user}/probabilities", asked)
        expected = user.probabilities(items, CONTEXT)
        assert (status, found["items"]) == (200, items)
        assert found["unknown"] == [item for item in items if item == "new"]
        np.testing.assert_allclose([*found["probabilities"], found["no_click"]], expected)
        user.chose(chosen)
        status, counted = client.ask("POST", f"{of_user}/choice", {"item": chosen})
        assert (status, counted) == (200, {"choices": user.n_events})
    assert client.ask("DELETE", of_user)[0] == 200
    assert client.ask("DELETE", of_user)[0] == 404


def test_actions_are_told_over_http(clients: dict[str, Client]) -> None:
    client, user = clients["actions"], model_of("actions").user()
    assert client.ask("GET", "/model")[1]["actions"] == ["cart", "past", "view"]
    name = client.ask("POST", "/users")[1]["user"]
    told = {"item": "x1", "action": "cart"}
    assert client.ask("POST", f"/users/{name}/action", told) == (200, {"choices": 0})
    user.acted("x1", "cart")
    _, found = client.ask("POST", f"/users/{name}/probabilities", {"items": ["i1", "i2"]})
    expected = user.probabilities(["i1", "i2"])
    np.testing.assert_allclose(found["probabilities"], expected[:2], atol=1e-6)
    status, answer = client.ask("POST", f"/users/{name}/action", {**told, "action": "carts"})
    assert status == 400
    assert "did you mean 'cart'" in answer["error"]


def test_fields_come_with_the_display(clients: dict[str, Client]) -> None:
    client, user = clients["fields"], model_of("fields, views, positions").user()
    assert client.ask("GET", "/model")[1]["fields"] == {
        **{"brand": "categories", "shelf": "categories"},
        **{"views": "numbers", "price": "numbers", "size": "numbers"},
    }
    name = client.ask("POST", "/users")[1]["user"]
    fields = {"price": [1, 2.5], "shelf": ["top", None], "size": [0, 1], "brand": ["a", 1]}
    asked = {"items": ["i1", "i2"], "fields": {**fields, "views": [1, 2]}}
    _, found = client.ask("POST", f"/users/{name}/probabilities", asked)
    expected = user.probabilities(**asked)
    np.testing.assert_allclose(found["probabilities"], expected[:2])


GOOD = {"items": ["i1"], "context": CONTEXT}
WRONG: list[tuple[str, str, Any, int, str]] = [
    ("GET", "/nothing", None, 404, "GET /nothing: Not Found"),
    ("GET", "/users", None, 405, "Method Not Allowed"),
    ("POST", "/users/none/probabilities", GOOD, 404, "there is no user 'none'"),
    ("POST", "USER/probabilities", b"{", 400, "a JSON object of items, context, fields"),
    ("POST", "USER/probabilities", b"[" * 100_000, 400, "a JSON object of items"),
    ("POST", "USER/probabilities", b"\xff", 400, "a JSON object of items"),
    ("POST", "USER/probabilities", b'{"items": ["\xff"]}', 400, "a JSON object of items"),
    ("POST", "USER/probabilities", {}, 400, "missing required field `items`"),
    ("POST", "USER/probabilities", {"items": "i1"}, 400, "Expected `array`, got `str`"),
    ("POST", "USER/probabilities", {**GOOD, "item": 1}, 400, "unknown field `item`"),
    ("POST", "USER/probabilities", {"items": ["i1"], "context": {}}, 400, "no field 'hour'"),
    ("POST", "USER/probabilities", {**GOOD, "items": []}, 400, "at least one item, got none"),
    ("POST", "USER/probabilities", {**GOOD, "items": ["a", "a"]}, 400, "got 'a' twice"),
    ("POST", "USER/probabilities", {**GOOD, "items": list(range(21))}, 413, "at most 20 items"),
    ("POST", "USER/probabilities", b" " * (MOST_BYTES + 1), 413, "at most 1048576 bytes"),
    ("POST", "USER/choice", {"item": "i1"}, 400, "call probabilities with its items first"),
    ("POST", "USER/action", {"item": "i1", "action": "view"}, 400, "the model reads no actions"),
    ("POST", "USER/choice", {}, 400, "missing required field `item`"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "says"), WRONG)
def test_what_is_wrong_is_said(
    clients: dict[str, Client], method: str, path: str, body: Any, status: int, says: str
) -> None:
    client = clients["context"]
    name = client.ask("POST", "/users")[1]["user"]
    code, answer = client.ask(method, path.replace("USER", f"/users/{name}"), body)
    assert code == status, answer
    assert says in answer["error"]
    assert client.ask("POST", f"/users/{name}/probabilities", GOOD)[0] == 200
    client.ask("DELETE", f"/users/{name}")


def test_a_body_says_what_it_is(clients: dict[str, Client]) -> None:
    client = clients["context"]
    name = client.ask("POST", "/users")[1]["user"]
    status, answer = client.ask("POST", f"/users/{name}/choice", b"{}", "text/plain")
    assert (status, "application/json, got text/plain" in answer["error"]) == (415, True)
    n_users = client.ask("GET", "/health")[1]["users"]
    # what a page in a browser may send anywhere
    for body, kind in ((None, "text/plain"), (b"", "application/x-www-form-urlencoded")):
        status, answer = client.ask("POST", "/users", body, kind)
        assert (status, f"got {kind}" in answer["error"]) == (415, True)
    status, answer = client.ask("POST", "/users", {"name": "ann"})
    assert (status, "unknown field `name`" in answer["error"]) == (400, True)
    assert client.ask("POST", "/users", {})[0] == 201
    assert client.ask("GET", "/health")[1]["users"] == n_users + 1


def begun(address: str, length: int = 100) -> socket.socket:
    """A connection on which a body has begun and not ended."""
    host, _, port = address.removeprefix("http://").partition(":")
    opened = socket.create_connection((host, int(port)), timeout=60)
    head = f"POST /users HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n"
    opened.sendall(f'{head}content-type: application/json\r\n\r\n{{"a'.encode())
    return opened


def heard(opened: socket.socket) -> str:
    """An answer, up to the end of its JSON object."""
    answer = b""
    while not answer.endswith(b"}") and (part := opened.recv(4096)):
        answer += part
    return answer.decode()


def test_a_body_has_to_come_in_time(
    clients: dict[str, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastgaum.serve.http.BODY_SECONDS", 0.1)
    with begun(clients["context"].address) as slow:
        answer = heard(slow)
    assert answer.startswith("HTTP/1.1 408 ")
    assert "has to come within 0.1 seconds, got 3 bytes" in answer


def test_a_client_that_leaves_is_no_traceback(
    clients: dict[str, Client], caplog: pytest.LogCaptureFixture
) -> None:
    begun(clients["context"].address).close()
    while clients["context"].ask("GET", "/health")[0] != 200:
        pass
    assert caplog.text == ""


def test_users_are_limited(clients: dict[str, Client]) -> None:
    client = clients["relations"]
    names = [client.ask("POST", "/users")[1]["user"] for _ in range(2)]
    status, answer = client.ask("POST", "/users")
    assert (status, "2 users are the most" in answer["error"]) == (429, True)
    client.ask("DELETE", f"/users/{names[0]}")
    assert client.ask("POST", "/users")[0] == 201


def test_users_that_are_idle_make_room() -> None:
    now = [0.0]
    model = model_of("relations, two layers").user().model
    users = ServedUsers(model, Limits(users=2, idle=10), clock=lambda: now[0])
    assert [users.new(), users.new()] == ["1", "2"]
    now[0] = 9
    first = users.find("1")
    with pytest.raises(ServiceError, match="none was idle for 10 seconds"):
        users.new()
    now[0] = 10
    assert users.new() == "3"
    assert len(users) == 2
    with pytest.raises(ServiceError, match="there is no user '2'"):
        users.find("2")
    assert users.find("1") is first


def test_what_a_user_remembers_is_limited() -> None:
    users = ServedUsers(model_of("relations, two layers").user().model, Limits(seen=4))
    user = users.find(users.new())
    for items in (["i1", "i2", "new"], ["i2", 4], ["i1", "i2", "new", "4"]):
        users.check_display(user, items)
        user.probabilities(items)
    assert user.n_items == 4
    for items, says in (
        (["i1", "i5"], "at most 4 different items here, and this one has seen 4"),
        (["i1", "x" * 1_001], "an item id has at most 1000 characters here, got one of 1001"),
    ):
        with pytest.raises(ServiceError, match=says) as refused:
            users.check_display(user, items)
        assert refused.value.status == 413
    users.check_display(user, ["i1", "4"])


def test_what_all_users_remember_is_limited() -> None:
    now = [0.0]
    model = model_of("relations, two layers").user().model
    users = ServedUsers(model, Limits(megabytes=1, idle=10), clock=lambda: now[0])
    first, second = users.new(), users.new()

    def shown(number: int) -> int:
        items = [f"{number}/{i}" for i in range(500)]
        users.probabilities(first, items, None, None)
        return users.chose(first, items[0])

    number = 0
    while users.n_bytes < 1_000_000:
        number += 1
        assert shown(number) == number
    assert number > 2
    with pytest.raises(ServiceError, match="take 1 MB, the most here, and none was idle") as full:
        shown(number + 1)
    assert full.value.status == 429
    counted = users.find(first).n_bytes
    assert 1_000_000 <= counted + users.find(second).n_bytes == users.n_bytes < 1_500_000
    with pytest.raises(ServiceError, match="1 MB"):
        users.new()
    now[0] = 9
    users.find(second)
    now[0] = 10
    # the user that is idle makes room for the other's display
    assert len(users.probabilities(second, ["i1"], None, None)) == 2
    with pytest.raises(ServiceError, match="there is no user '1'"):
        users.find(first)
    users.end(second)
    assert users.n_bytes == 0


def test_a_user_s_memory_is_about_what_it_says() -> None:
    model = model_of("relations, two layers").user().model
    ServedUsers(model).warm()
    displays = [[f"{number}/{i}" for i in range(100)] for number in range(8)]
    tracemalloc.start()
    user = OnlineUser(model)
    for items in displays:
        user.probabilities(items)
        user.chose(items[0])
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.7 < user.n_bytes / taken < 1.5


@pytest.mark.parametrize(
    ("package", "arguments", "says"),
    [
        ("starlette.applications", [], "needs starlette, which is not installed"),
        ("uvicorn", ["--http", "0"], "needs uvicorn, which is not installed"),
        ("mcp.server.mcpserver", ["--mcp"], "--mcp needs the MCP SDK, which is not installed"),
    ],
)
def test_without_the_extra_it_is_said_how_to_get_it(
    package: str,
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model_of("relations, two layers").save(tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["serve", str(tmp_path / "model.safetensors"), *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "pip install 'fastgaum[serve]'" in said


def test_the_command_serves_until_a_signal_also_with_half_a_body(tmp_path: Path) -> None:
    model = fitted(random_log(4, 24, no_click=0.3), **IDENTITY)
    model.save(tmp_path / "model.safetensors")
    command = [sys.executable, "-m", "fastgaum", "serve", str(tmp_path / "model.safetensors")]
    with subprocess.Popen(
        [*command, "--http", "0", "--json", str(tmp_path / "service.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:\d+", running.stdout.readline())
        assert address is not None
        assert json.loads((tmp_path / "service.json").read_text())["address"] == address[0]
        client = Client(address[0])
        name = client.ask("POST", "/users")[1]["user"]
        _, found = client.ask("POST", f"/users/{name}/probabilities", {"items": ["i1", "i2"]})
        begun(address[0]).close()
        with begun(address[0]) as slow:
            client.ask("GET", "/health")
            running.send_signal(signal.SIGTERM)
            assert "the service ends" in heard(slow)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (143, "")
    assert err.endswith("fastgaum: interrupted\n")
    assert "Traceback" not in err
    expected = UserModel.load(tmp_path / "model.safetensors").user().probabilities(["i1", "i2"])
    np.testing.assert_allclose([*found["probabilities"], found["no_click"]], expected)


def test_what_a_service_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_socket("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="another port"):
        open_socket("127.0.0.1", taken.getsockname()[1])
    for arguments, says in (
        (["--http", "70000"], "from 0 (any free one) to 65535, got 70000"),
        (["--host", "a\0b"], "host is 'a\\x00b', which is no address and no name"),
        (["--host", "ü" * 100], "which is no address and no name"),
        (["--http", "0", "--users", "0"], "users must be above 0, got 0"),
        (["--http", "0", "--memory", "0"], "megabytes must be above 0, got 0"),
        (["--http", "1", "--mcp"], "--mcp and --http were given"),
        (["--mcp", "--json", "-"], "--json has the address of --http, and --mcp has none"),
        (["--mcp", "--seed", "-1"], "seed must be at least 0, got -1"),
        (["--item-table", "none.csv"], "no such file or folder: 'none.csv'"),
    ):
        model_of("relations, two layers").save(tmp_path / "model.safetensors")
        assert main(["serve", str(tmp_path / "model.safetensors"), *arguments]) == 2
        assert says in capsys.readouterr().err
