"""A page that is served for a test, and requests to it as a browser would send them."""

import http.client
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unilat.app.desk import Desk
from unilat.app.jobs import Jobs
from unilat.app.server import Server, opened


class Page:
    """A served page."""

    def __init__(self, server: Server):
        self.server, self.desk, self.jobs = server, server.answers.desk, server.answers.jobs
        self.port = server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a request; ``headers`` have underscores for dashes, an empty one is left out."""
        given = {"Host": self.host, "X-Unilat-Token": self.server.token}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True)
        for name, value in given.items():
            if value:
                connection.putheader(name, value)
        if body is not None and "Content_Length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def get(self, path: str) -> Any:
        """What a question is answered with; its line where it is refused."""
        return self._told(self.ask("GET", f"/api/{path}"))

    def post(self, path: str, order: object) -> Any:
        """What an order, or the bytes of a picture, is answered with."""
        body = order if isinstance(order, bytes) else json.dumps(order).encode()
        return self._told(self.ask("POST", f"/api/{path}", body))

    @staticmethod
    def _told(answer: tuple[int, dict[str, str], bytes]) -> Any:
        tree = json.loads(answer[2])
        return tree if answer[0] == 200 else tree["error"]


@contextmanager
def served(folders: Sequence[Path], out: Path, data: Sequence[str] = (), host: str = "127.0.0.1") -> Iterator[Page]:
    """The page on ``folders`` at a free port."""
    server = opened(Desk(folders), Jobs(data, out), host, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Page(server)
    finally:
        if server.answers.jobs.running:
            server.answers.jobs.stop()
        server.shutdown()
        server.server_close()
        thread.join()
