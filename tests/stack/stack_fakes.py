"""A pretended machine for the stack's plain tests: fake servers that answer like the real ones."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from underlay.stack import read_pins
from underlay.stack.binaries import NAMES, stamp_path

ROOT = Path(__file__).parents[2]

# Answers 200 on every port that the runner gave it, which it learns the way the real servers do: Prometheus
# by flag, the others by variable. A file <program>.broken makes it die at once, <program>.mute unhealthy.
SERVER = """\
#!{python} -S
import os, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
name = os.path.basename(sys.argv[0])
print("environment", sorted(os.environ), flush=True)
mark = os.path.join(os.path.dirname(sys.argv[0]), name)
if os.path.exists(mark + ".broken"):
    sys.exit("no such luck")
variables = {{"otelcol": ["OTLP_GRPC", "OTLP_HTTP", "COLLECTOR_HEALTH"],
             "jaeger": ["JAEGER", "JAEGER_GRPC", "JAEGER_OTLP", "JAEGER_HEALTH"]}}
ports = [int(os.environ[f"UNDERLAY_{{part}}_PORT"]) for part in variables.get(name, [])]
ports += [int(flag.rpartition(":")[2]) for flag in sys.argv if flag.startswith("--web.listen-address=")]
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists(mark + ".mute") else 200)
        self.end_headers()
    def log_message(self, *_):
        return
servers = [HTTPServer(("127.0.0.1", port), Answer) for port in ports]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
servers[0].serve_forever()
"""


def program(path: Path, text: str) -> Path:
    """Write an executable script."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@dataclass(frozen=True, slots=True)
class Machine:
    """A pretended machine: the stack's home, its cache of servers, and the only folder on PATH."""

    home: Path
    bin: Path
    path: Path

    @property
    def environ(self) -> dict[str, str]:
        """The environment to call the stack's functions with."""
        return {
            "HOME": str(self.home.parent),
            "PATH": str(self.path),
            "UNDERLAY_STACK_HOME": str(self.home),
            "UNDERLAY_STACK_BIN": str(self.bin),
        }

    def install(self) -> None:
        """Put fake servers with the pinned versions into the cache folder."""
        self.bin.mkdir()
        pins = read_pins()
        versions = {"collector": pins.collector, "prometheus": pins.prometheus, "jaeger": pins.jaeger}
        for service, names in NAMES.items():
            program(self.bin / names[0], SERVER.format(python=sys.executable))
            stamp_path(self.bin, service).write_text(f"{versions[service]} recipe\n", encoding="utf-8")
