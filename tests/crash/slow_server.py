"""A server on this machine that sends one file slowly."""

from __future__ import annotations

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PARTS = 40


class SlowServer:
    """Sends `content` in so many seconds."""

    def __init__(self, content: bytes, seconds: float) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                size = len(content) // PARTS + 1
                # the one who asked may have been killed
                with contextlib.suppress(ConnectionError):
                    for at in range(0, len(content), size):
                        self.wfile.write(content[at : at + size])
                        time.sleep(seconds / PARTS)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
