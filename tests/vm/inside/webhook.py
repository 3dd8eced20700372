"""Whoever is told over HTTP: appends what comes, a line of JSON {"at", "body"} each, to a file.

webhook.py FILE [PORT]          stands for Alertmanager, or for what it notifies
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

PORT = 9095  # as in packaging/alertmanager/alertmanager.example.yaml


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with Path(sys.argv[1]).open("a") as file:
            file.write(json.dumps({"at": time.time(), "body": body}) + "\n")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the file has it."""


HTTPServer(("127.0.0.1", int(sys.argv[2]) if sys.argv[2:] else PORT), Receiver).serve_forever()
