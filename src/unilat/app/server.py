"""The web server of the page: what may ask, what is answered, and how it begins and ends.

Whoever asks must name this machine (a page of somebody else's that has made its name point here does not), come from
the page itself and hold its token, which stands in the page and nowhere else. Bodies are capped before they are read.
"""

import contextlib
import errno
import hmac
import ipaddress
import json
import math
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from unilat.app.answers import Answers, Reply, Wrong
from unilat.app.desk import Desk
from unilat.app.jobs import Jobs, choices
from unilat.run.trained import read_config
from unilat.types import UserError

MOST_PICTURE = 32 << 20
"""Bytes of a dropped picture."""
MOST_ORDER = 64 << 10
"""Bytes of any other request."""
SECONDS_TO_END = 20.0
"""That a run which is being opened may take until the page has ended."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
STATIC = {"/page.css": "text/css", "/page.js": "text/javascript"}


class Server(ThreadingHTTPServer):
    """The page at an address."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], answers: Answers):
        self.answers, self.token = answers, secrets.token_urlsafe(18)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.named = address[0]
        super().__init__(address, Handler)
        self.alone = is_loopback(self.named)

    @property
    def address(self) -> str:
        """Where to open it; with the token where others may reach it, too."""
        host = f"[{self.named}]" if ":" in self.named else self.named
        return f"http://{host}:{self.server_address[1]}/" + ("" if self.alone else f"?key={self.token}")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, format: str, *args: object) -> None:
        """The terminal is not told of each request."""

    def do_GET(self) -> None:
        """The page, its two files, and what it asks for."""
        path, query = self._place()
        if not self._is_ours():
            return
        if path == "/":
            if not (self.server.alone or hmac.compare_digest(query.get("key", ""), self.server.token)):
                self._refuse(HTTPStatus.FORBIDDEN, "open the whole address that `unilat ui` has printed")
                return
            self._send(200, "text/html", page(self.server.token).encode())
        elif path in STATIC:
            text = _file(path[1:])
            self._send(200, STATIC[path], (_style() + text if path == "/page.css" else text).encode())
        elif path.startswith("/api/"):
            self._answer(self.server.answers.get, path[5:], query)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

    def do_POST(self) -> None:
        """What computes or acts."""
        path, query = self._place()
        if not self._is_ours():
            return
        most = MOST_PICTURE if path == "/api/picture" else MOST_ORDER
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or self.headers.get("Transfer-Encoding"):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "a request says how long it is")
        elif int(length) > most:
            told = f"at most {most >> 20} MiB" if most == MOST_PICTURE else "too long"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"this file is too large for the page: {told}")
        else:
            body = self.rfile.read(int(length)) if self._has_token() else b""
            self._answer(self.server.answers.post, path.removeprefix("/api/"), query, body)

    def _place(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}

    def _is_ours(self) -> bool:
        """Whether the request names this machine and comes from no other page."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if not is_here(host, self.server.named):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "this address is not the page's: open the one it has printed")
            return False
        elsewhere = self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        navigates = self.headers.get("Sec-Fetch-Mode") == "navigate" and self.command == "GET"
        if (origin is not None and origin != f"http://{host}") or (elsewhere and not navigates):
            self._refuse(HTTPStatus.FORBIDDEN, "another page may not ask this one")
            return False
        return True

    def _has_token(self) -> bool:
        return hmac.compare_digest(self.headers.get("X-Unilat-Token", "").encode(), self.server.token.encode())

    def _answer(self, act: Callable[..., Reply], *given: object) -> None:
        if not self._has_token():
            self._refuse(HTTPStatus.FORBIDDEN, "the page was opened by another `unilat ui`: load it again")
            return
        try:
            self._send(200, "application/json", json.dumps(plain(act(*given)), allow_nan=False).encode())
        except Wrong as error:
            self._refuse(HTTPStatus.NOT_FOUND, str(error))
        except UserError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except ConnectionError:
            raise
        except Exception as error:  # told as such, and the page goes on
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"unexpected: {type(error).__name__}: {error}")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True  # what is left of its body is not read
        self._send(int(status), "application/json", json.dumps({"error": " ".join(why.split())}).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def serve(
    runs: Sequence[Path],
    *,
    data: Sequence[str] = (),
    out: Path = Path("runs"),
    host: str = "127.0.0.1",
    port: int = 7860,
    say: Callable[[str], object],
) -> None:
    """Open the page on ``runs`` and keep it until Ctrl-C, which stops a training that it has begun.

    Raises :class:`UserError` for a folder that is no run, and for an address that cannot be listened on.
    """
    folders = list(dict.fromkeys(Path(run) for run in runs))
    sources = [read_config(folder).data.source for folder in folders]
    jobs = Jobs(choices(data, sources), out)
    server = opened(Desk(folders), jobs, host, port)
    say(f"the page is at {server.address} (Ctrl-C ends it)")
    if not server.alone:
        say("whoever has this whole address can use the page, and start and stop trainings")
    desk = server.answers.desk
    opening = threading.Thread(target=desk.about, daemon=True)  # opens the runs, while the page is loaded
    opening.start()
    with contextlib.suppress(ValueError):  # in a thread of a test there are no signals
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        if jobs.running:
            say(f"stopping the training of {jobs.folder}; the same command goes on with it")
            jobs.stop()
        opening.join(SECONDS_TO_END)  # an interpreter that ends while torch is at work in a thread aborts


def opened(desk: Desk, jobs: Jobs, host: str, port: int) -> Server:
    """The server, listening; UserError where it cannot."""
    if not 0 <= port <= 65535:
        raise UserError(f"`port` {port}: a number from 0, which takes a free one, to 65535")
    try:
        return Server((host, port), Answers(desk, jobs))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} of {host} is in use: choose another `port`, or 0 for a free one") from None
        raise UserError(f"{host} cannot be listened on ({error.strerror or error}): choose another `host`") from None


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def is_here(host: str, named: str) -> bool:
    """Whether a request's Host is an address or a name of this page.

    A name of somebody else's that leads here (DNS rebinding) is none. A page for this machine alone has its own
    addresses; one for others has every address in numbers, and the name that it was opened with.
    """
    name = urlsplit(f"//{host}").hostname or ""
    if is_loopback(name) or name == named:
        return True
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return not is_loopback(named)
    return False


def page(token: str) -> str:
    """The page, with its token."""
    return _file("page.html").replace("TOKEN", token)


def plain(value: Any) -> Any:
    """``value`` as JSON has it, numbers that are not finite as null."""
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _style() -> str:
    from unilat.report.compare import css
    from unilat.report.style import CSS

    return CSS + css()


def _file(name: str) -> str:
    return resources.files("unilat.app").joinpath(name).read_text("utf-8")
