"""`fastgaum serve`: users of a run as a service, over HTTP or as tools of an agent."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.options import Flag, Json, RunPath
from fastgaum.cli.output import check_outputs, finish, note
from fastgaum.errors import ConfigError

if TYPE_CHECKING:
    from polars import DataFrame

PORT = 8000
LOCAL = ("127.0.0.1", "::1", "localhost")


@Parameter(name="*")
@dataclass(frozen=True)
class Service:
    """How clients reach the users, and what they may have."""

    http: Annotated[
        int | None,
        Parameter(help=f"the port to listen on, {PORT} if nothing is given; 0: a free one"),
    ] = None
    mcp: Flag = False
    """serve tools of the Model Context Protocol on stdin and stdout instead"""
    host: str = LOCAL[0]
    """the address to listen on; anyone who reaches it can use the service"""
    head: Annotated[
        Literal["reward", "generator"], Parameter(help="whose probabilities displays have")
    ] = "reward"
    item_table: Annotated[
        Path | None,
        Parameter(help="a file with a column item, and one for each field that it knows"),
    ] = None
    users: int = 10_000
    """users at a time"""
    items: int = 1_000
    """items of a display at most"""
    memory: int = 2_000
    """megabytes of all users together"""
    seed: int = 0
    """seeds what users choose (--mcp)"""


DEFAULT_SERVICE = Service()


def serve_command(
    run: RunPath, /, *, service: Service = DEFAULT_SERVICE, json: Json = None
) -> None:
    """Score displays for the users of clients, until Ctrl-C ends it.

    With `--json` the address goes into a file as soon as the service listens."""
    check_outputs(json)
    from fastgaum.baselines.registry import load_model
    from fastgaum.serve.users import Limits

    asked = service
    if asked.mcp and asked.http is not None:
        raise ConfigError("--mcp and --http were given: a service has one of them")
    if asked.mcp and json is not None:
        raise ConfigError("--json has the address of --http, and --mcp has none: leave it out")
    if asked.seed < 0:
        raise ConfigError(f"seed must be at least 0, got {asked.seed}")
    limits = Limits(users=asked.users, items=asked.items, megabytes=asked.memory)
    model = load_model(run, device="cpu").user(asked.head).model
    if asked.item_table is not None:
        model = model.with_item_table(_item_table(asked.item_table))
    if asked.mcp:
        from fastgaum.serve.mcp import mcp_server, run_stdio

        run_stdio(mcp_server(model, asked.seed, limits))
        return
    from fastgaum.serve.http import http_app, open_socket, run_http

    app = http_app(model, limits)
    with open_socket(asked.host, PORT if asked.http is None else asked.http) as listening:
        if asked.host not in LOCAL:
            note(f"anyone who reaches {asked.host} can use this service")
        host = f"[{asked.host}]" if ":" in asked.host else asked.host
        address = f"http://{host}:{listening.getsockname()[1]}"
        finish(f"{run}: {address}, until Ctrl-C", json, {"run": str(run), "address": address})
        sys.stdout.flush()
        run_http(app, listening)


def _item_table(path: Path) -> DataFrame:
    from fastgaum.logs.tables import open_table

    table = open_table(path)
    return table.read(list(table.dtypes))
