"""A page that says its message, and which push brought it. Python's standard library is enough."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MESSAGE = "Hello from Patchwire"


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        push_id = os.environ.get("PATCHWIRE_PUSH_ID", "none")
        body = f"{MESSAGE} (push {push_id})\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Says nothing of every request: the readiness check makes many."""


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    server = ThreadingHTTPServer(("127.0.0.1", port), Page)
    print(f"serving {MESSAGE!r} at http://127.0.0.1:{port}/", flush=True)
    server.serve_forever()
