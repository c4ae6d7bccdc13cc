"""A server on this machine that sends one file slowly, and goes on where it is asked to."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PARTS = 40


class SlowServer:
    """Sends `content` in so many seconds; understands Range."""

    def __init__(self, content: bytes, seconds: float) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                start = int(asked[1]) if asked else 0
                self.send_response(206 if asked else 200)
                if asked:
                    self.send_header(
                        "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                    )
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                size = len(content) // PARTS + 1
                # the one who asked may have been killed
                with contextlib.suppress(ConnectionError):
                    for at in range(start, len(content), size):
                        self.wfile.write(content[at : at + size])
                        time.sleep(seconds / PARTS)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
