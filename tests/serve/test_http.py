"""The HTTP service, asked by a client in this process, and over a socket."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from fastgaum.cli.app import main
from fastgaum.cli.serve import _listen
from fastgaum.models.user_model import UserModel
from fastgaum.serve.http import MOST_BODY, http_app
from tests.builders import random_log
from tests.live_users.online_users import IDENTITY, fitted, model_of


class Client:
    """What a program without our code does."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def ask(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        answer = self.client.request(method, path, content=data, headers={"content-type": kind})
        return answer.status_code, answer.json()

    def new(self) -> str:
        return f"/users/{self.ask('POST', '/users', {})[1]['user']}"


@pytest.fixture(scope="module")
def clients() -> dict[str, Client]:
    """Of a model that reads context, one that reads fields, and one that reads actions."""
    names = ("context, network", "fields, views, positions", "actions")
    apps = {name.partition(",")[0]: http_app(model_of(name).user().model) for name in names}
    return {name: Client(TestClient(app)) for name, app in apps.items()}


CONTEXT = {"hour": 0.5, "kind": "i1", "page": "i2", "target": "i3"}
FIELDS = {"price": [1, 2.5], "shelf": ["top", None], "size": [0, 1], "brand": ["a", 1]}


def test_a_user_over_http_is_the_one_in_python(clients: dict[str, Client]) -> None:
    client, user = clients["context"], model_of("context, network").user()
    status, health = client.ask("GET", "/health")
    assert (status, health["status"]) == (200, "ok")
    about = client.ask("GET", "/model")[1]
    assert (about["context"], about["no_click"]) == (user.model.context_fields, True)
    of_user = client.new()
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


def test_fields_and_actions_come_with_the_user(clients: dict[str, Client]) -> None:
    client, user = clients["fields"], model_of("fields, views, positions").user()
    kinds = dict.fromkeys(("views", "price", "size"), "numbers")
    kinds |= {"brand": "categories", "shelf": "categories"}
    assert client.ask("GET", "/model")[1]["fields"] == kinds
    asked = {"items": ["i1", "i2"], "fields": {**FIELDS, "views": [1, 2]}}
    _, found = client.ask("POST", f"{client.new()}/probabilities", asked)
    np.testing.assert_allclose(found["probabilities"], user.probabilities(**asked)[:2])

    client, user = clients["actions"], model_of("actions").user()
    assert client.ask("GET", "/model")[1]["actions"] == ["cart", "past", "view"]
    of_user, done = client.new(), {"item": "x1", "action": "cart"}
    assert client.ask("POST", f"{of_user}/action", done) == (200, {"choices": 0})
    user.acted("x1", "cart")
    _, found = client.ask("POST", f"{of_user}/probabilities", {"items": ["i1", "i2"]})
    expected = user.probabilities(["i1", "i2"])
    np.testing.assert_allclose(found["probabilities"], expected[:2], atol=1e-6)
    status, answer = client.ask("POST", f"{of_user}/action", {**done, "action": "carts"})
    assert (status, "did you mean 'cart'" in answer["error"]) == (400, True)


GOOD = {"items": ["i1"], "context": CONTEXT}
WRONG: list[tuple[str, str, Any, int, str]] = [
    ("GET", "/nothing", None, 404, "Not Found"),
    ("GET", "/users", None, 405, "Method Not Allowed"),
    ("POST", "/users/none/probabilities", GOOD, 404, "there is no user 'none'"),
    ("POST", "USER/nothing", GOOD, 404, "a user has probabilities, choice, action"),
    ("POST", "/users", {"name": "ann"}, 400, "unknown field `name`"),
    ("POST", "USER/probabilities", b"{", 400, "a JSON object of items, context, fields"),
    ("POST", "USER/probabilities", b"[" * 100_000, 400, "a JSON object of items"),
    ("POST", "USER/probabilities", b"\xff", 400, "a JSON object of items"),
    ("POST", "USER/probabilities", b'{"items": ["\xff"]}', 400, "a JSON object of items"),
    ("POST", "USER/probabilities", {}, 400, "missing required field `items`"),
    ("POST", "USER/probabilities", {"items": "i1"}, 400, "Expected `array`, got `str`"),
    ("POST", "USER/probabilities", {**GOOD, "item": 1}, 400, "unknown field `item`"),
    ("POST", "USER/probabilities", {"items": ["i1"], "context": {}}, 400, "no field 'hour'"),
    ("POST", "USER/probabilities", b" " * (MOST_BODY + 1), 413, "at most 1048576 bytes"),
    ("POST", "USER/choice", {"item": "i1"}, 400, "call probabilities with its items first"),
    ("POST", "USER/action", {"item": "i1", "action": "view"}, 400, "the model reads no actions"),
    ("POST", "USER/choice", {}, 400, "missing required field `item`"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "says"), WRONG)
def test_what_is_wrong_is_said(
    clients: dict[str, Client], method: str, path: str, body: Any, status: int, says: str
) -> None:
    client = clients["context"]
    of_user = client.new()
    code, answer = client.ask(method, path.replace("USER", of_user), body)
    assert code == status, answer
    assert says in answer["error"]
    assert client.ask("POST", f"{of_user}/probabilities", GOOD)[0] == 200


def test_a_body_says_that_it_is_json(clients: dict[str, Client]) -> None:
    """A page in a browser may send other types anywhere."""
    client = clients["context"]
    n_users = client.ask("GET", "/health")[1]["users"]
    for body, kind in ((None, "text/plain"), (b"{}", "application/x-www-form-urlencoded")):
        status, answer = client.ask("POST", "/users", body, kind)
        assert (status, f"application/json, got {kind}" in answer["error"]) == (415, True)
    assert client.ask("GET", "/health")[1]["users"] == n_users


def begun(address: str) -> socket.socket:
    """A connection on which a body has begun and not ended."""
    host, _, port = address.removeprefix("http://").partition(":")
    opened = socket.create_connection((host, int(port)), timeout=60)
    head = "POST /users HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n"
    opened.sendall(f'{head}content-type: application/json\r\n\r\n{{"a'.encode())
    return opened


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

        def ask(path: str, body: Any) -> Any:
            headers, data = {"content-type": "application/json"}, json.dumps(body).encode()
            request = urllib.request.Request(f"{address[0]}{path}", data, headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)

        user = ask("/users", {})["user"]
        found = ask(f"/users/{user}/probabilities", {"items": ["i1", "i2"]})
        begun(address[0]).close()
        with begun(address[0]):
            ask("/users", {})
            running.send_signal(signal.SIGTERM)
            out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (143, "")
    assert err.endswith("fastgaum: interrupted\n")
    assert "Traceback" not in err
    expected = UserModel.load(tmp_path / "model.safetensors").user().probabilities(["i1", "i2"])
    np.testing.assert_allclose([*found["probabilities"], found["no_click"]], expected)


def test_an_accepted_connection_sends_at_once() -> None:
    """Without this option, an answer on a connection that is kept takes 40 ms."""
    with _listen("127.0.0.1", 0) as listening:
        client = socket.create_connection(listening.getsockname(), timeout=60)
        with client, listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_a_service_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_of("relations, two layers").save(tmp_path / "model.safetensors")

    def refused(*arguments: str) -> str:
        assert main(["serve", str(tmp_path / "model.safetensors"), *arguments]) == 2
        return capsys.readouterr().err

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "Address already in use" in refused("--http", port)
    assert "--mcp and --http were given" in refused("--http", "1", "--mcp")
    assert "--json has the address of --http, and --mcp has none" in refused("--mcp", "--json", "-")
    assert "seed must be at least 0, got -1" in refused("--mcp", "--seed", "-1")
    assert "no such file or folder: 'none.csv'" in refused("--item-table", "none.csv")
    for package, arguments in (("uvicorn", []), ("mcp.server.mcpserver", ["--mcp"])):
        for module in ("fastgaum.serve.http", "fastgaum.serve.mcp"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setitem(sys.modules, package, None)
        said = refused(*arguments)
        assert f"a service needs {package}, which is not installed" in said
        assert "pip install '.[serve]' in the clone" in said
