"""A service of your own that ranks what visitors see: `python online_service.py`.

Each visitor is an online user: the service ranks candidates by the probabilities of a display, and
tells the user what was clicked. It needs `pip install '.[serve]'` in the clone.
"""

import json
import threading
import urllib.request
from socket import create_server
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import fastgaum as fg


def service(model: fg.UserModel) -> Starlette:
    """POST /rank {"visitor": …, "items": […]}, and POST /clicked {"visitor": …, "item": …}."""
    visitors: dict[str, Any] = {}  # a real service bounds it, and forgets who has left

    async def rank(request: Request) -> JSONResponse:
        asked = await request.json()
        user = visitors.setdefault(asked["visitor"], model.user())
        try:
            shares = user.probabilities(asked["items"])
        except fg.errors.FastgaumError as error:
            return JSONResponse({"error": str(error)}, 400)
        ranked = sorted(zip(shares.tolist(), asked["items"], strict=False), reverse=True)
        return JSONResponse({"ranked": [item for _, item in ranked], "best": ranked[0][0]})

    async def clicked(request: Request) -> JSONResponse:
        told = await request.json()
        user = visitors[told["visitor"]]
        user.chose(told["item"])
        return JSONResponse({"choices": user.n_events})

    return Starlette(
        routes=[
            Route("/rank", rank, methods=["POST"]),
            Route("/clicked", clicked, methods=["POST"]),
        ]
    )


def main(**settings: Any) -> dict[str, Any]:
    """Train on the bundled sample, serve, and be the one visitor."""
    model = fg.UserModel.from_preset("fastgaum", **settings)
    model.fit(fg.load("sample"))
    assert model.space is not None
    items = model.space.categorical[0].values.to_list()[:10]
    listening = create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(service(model), log_level="warning"))
    running = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    running.start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def ask(path: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(address + path, json.dumps(body).encode())
        with urllib.request.urlopen(request) as answer:
            return dict(json.load(answer))

    first = ask("/rank", visitor="ada", items=items)
    ask("/clicked", visitor="ada", item=first["ranked"][3])
    second = ask("/rank", visitor="ada", items=items)
    print("at first:", *first["ranked"])
    print("after a click on", first["ranked"][3] + ":", *second["ranked"])
    server.should_exit = True
    running.join()
    listening.close()
    return {"first": first["ranked"], "second": second["ranked"]}


if __name__ == "__main__":
    main()
