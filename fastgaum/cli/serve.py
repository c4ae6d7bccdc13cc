"""`fastgaum serve`: users of a run as a service, over HTTP or as tools of an agent."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.options import Flag, JsonFile, RunPath
from fastgaum.cli.output import check_outputs, finish, note
from fastgaum.errors import ConfigError

LOCAL = ("127.0.0.1", "::1", "localhost")


def serve_command(
    run: RunPath,
    /,
    *,
    http: Annotated[
        int | None, Parameter(help="the port to listen on, 8000 if not given; 0: a free one")
    ] = None,
    mcp: Annotated[
        Flag,
        Parameter(help="serve tools of an agent (MCP) on stdin and stdout, in place of HTTP"),
    ] = False,
    host: Annotated[
        str, Parameter(help="the address to listen on; everyone who reaches it can use the service")
    ] = LOCAL[0],
    head: Annotated[
        Literal["reward", "generator"], Parameter(help="the network whose probabilities are served")
    ] = "reward",
    item_table: Annotated[
        Path | None,
        Parameter(help="a table of further items: a column item, and one for each field"),
    ] = None,
    seed: Annotated[int, Parameter(help="seed of the choices of simulated users (--mcp)")] = 0,
    json: JsonFile = None,
) -> None:
    """Serve a trained model over HTTP, or as tools of an agent (MCP).

    It scores one display at a time and remembers each user. It needs `pip install '.[serve]'` in
    the clone."""
    check_outputs(json)
    from fastgaum.baselines.registry import load_model
    from fastgaum.logs.tables import open_table

    if mcp and http is not None:
        raise ConfigError("--mcp and --http were given: a service has one of them")
    if mcp and json is not None:
        raise ConfigError("--json has the address of --http, and --mcp has none: leave it out")
    if seed < 0:
        raise ConfigError(f"seed must be at least 0, got {seed}")
    model = load_model(run, device="cpu").user(head).model
    if item_table is not None:
        table = open_table(item_table)
        model = model.with_item_table(table.read(list(table.dtypes)))
    try:
        if mcp:
            from fastgaum.serve.mcp import mcp_server

            mcp_server(model, seed).run()
            return
        import uvicorn

        from fastgaum.serve.http import http_app
    except ImportError as error:
        raise ConfigError(
            f"a service needs {error.name}, which is not installed: pip install '.[serve]' in the "
            "clone"
        ) from None
    with _listen(host, 8000 if http is None else http) as listening:
        if host not in LOCAL:
            note(f"anyone who reaches {host} can use this service")
        host = f"[{host}]" if ":" in host else host
        address = f"http://{host}:{listening.getsockname()[1]}"
        finish(f"{run}: {address}, until Ctrl-C", json, {"run": str(run), "address": address})
        sys.stdout.flush()
        config = uvicorn.Config(http_app(model), log_level="warning", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65_535:
        raise ConfigError(f"a port is from 0 (any free one) to 65535, got {port}")
    try:
        # asked first: `create_server` leaves a socket open where a host cannot be a name
        socket.getaddrinfo(host, port)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(
            f"cannot listen on {host!r}, port {port} ({error}): the host is an address or a name "
            "of this machine, such as 127.0.0.1, and no other program listens on the port"
        ) from None
    # Accepted connections inherit it. Without it, the body of an answer on a connection that is
    # kept waits until the client acknowledges the head, and clients delay that by 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
