"""Who may ask the page, what it refuses, and in what words."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unilat.app.desk import Desk
from unilat.app.jobs import Jobs, Order, choices
from unilat.app.server import Server, is_here, opened, serve
from unilat.app.server import page as html
from unilat.cli import main
from unilat.recipe import presets
from unilat.recipe.config import to_dict
from unilat.run.folder import RunFolder
from unilat.types import UserError

from .served import Page, served


def _png(high: int, wide: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((high, wide), 90, np.uint8)).save(out, format="PNG")
    return out.getvalue()


def test_the_page_asks_nobody_else(page: Page) -> None:
    """Kills: a font, a script or a picture of another address; a page that others may frame or run scripts in."""
    for path in ("/", "/page.css", "/page.js"):
        status, headers, body = page.ask("GET", path)
        text = body.decode()
        assert status == 200 and "http:" not in text and "https:" not in text and "//cdn" not in text
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "connect-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy and headers["x-content-type-options"] == "nosniff"
    assert page.server.token in page.ask("GET", "/")[2].decode() and "TOKEN" not in html("x")


def test_names_of_others_that_lead_here_are_refused(page: Page) -> None:
    """DNS rebinding. Kills: a check that goes by the port, or that is made for orders alone."""
    for host in ("evil.example", f"evil.example:{page.port}", "127.0.0.1.evil.example", "localhost.evil.example", ""):
        for method, path in (("GET", "/"), ("GET", "/api/runs"), ("POST", "/api/stop")):
            status, _, body = page.ask(method, path, b"{}" if method == "POST" else None, Host=host)
            assert status in (400, 421) and page.server.token.encode() not in body
    for host in (f"localhost:{page.port}", f"127.0.0.1:{page.port}", f"[::1]:{page.port}"):
        assert page.ask("GET", "/api/runs", Host=host)[0] == 200
    assert is_here("192.168.1.5:80", "0.0.0.0") and not is_here("192.168.1.5:80", "127.0.0.1")
    assert is_here("box:80", "box") and not is_here("other:80", "0.0.0.0")


def test_pages_of_others_may_not_ask(page: Page) -> None:
    """Kills: an order without the token, one with another's, a foreign Origin, a form of another site's."""
    order = json.dumps({"run": 0}).encode()
    assert page.ask("POST", "/api/stop", order, X_Unilat_Token="")[0] == 403
    assert page.ask("POST", "/api/stop", order, X_Unilat_Token="x" * 24)[0] == 403
    assert page.ask("GET", "/api/runs", X_Unilat_Token="")[0] == 403
    assert page.ask("POST", "/api/stop", order, Origin="http://evil.example")[0] == 403
    assert page.ask("POST", "/api/stop", order, Origin="null")[0] == 403
    assert page.ask("POST", "/api/stop", order, Sec_Fetch_Site="cross-site")[0] == 403
    assert page.ask("GET", "/page.js", Sec_Fetch_Site="cross-site")[0] == 403
    assert page.ask("GET", "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200  # a link to it
    assert page.ask("POST", "/api/stop", order, Origin=f"http://{page.host}")[0] == 400  # nothing is trained


def test_a_page_for_others_needs_its_whole_address(tiny_run: Path, tmp_path: Path) -> None:
    """Kills: a page that anybody in the network may use, a token printed for a page of this machine alone."""
    with served([tiny_run], tmp_path, host="0.0.0.0") as page:
        assert page.server.address == f"http://0.0.0.0:{page.port}/?key={page.server.token}"
        assert page.ask("GET", "/")[0] == 403 and page.ask("GET", "/?key=x")[0] == 403
        assert page.ask("GET", f"/?key={page.server.token}")[0] == 200
    with served([tiny_run], tmp_path) as page:
        assert page.server.address == f"http://127.0.0.1:{page.port}/"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "this picture cannot be read: empty file"),
        (b"<svg onload=alert(1)>", "this picture cannot be read: not a picture (PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "this picture cannot be read: not a picture (PNG"),
        (_png(8, 40), "this picture cannot be read: smaller than 16: 8 x 40"),
        (_png(40, 40)[:60], "this picture cannot be read: "),
    ],
)
def test_pictures_that_cannot_be_read_are_one_line(page: Page, data: bytes, words: str) -> None:
    """Our own reader's formats and its reasons. Kills: Pillow's other formats, a traceback, a line without a cause."""
    told = page.post("picture?run=0", data)
    assert isinstance(told, str) and told.startswith(words) and "\n" not in told


def test_pixels_are_capped_from_the_header(page: Page) -> None:
    """A picture of 10 GB in 100 bytes. Kills: decoding before looking."""
    head = _png(20, 20)
    wide = head[:16] + (60_000).to_bytes(4, "big") * 2 + head[24:29]
    import zlib

    bomb = wide + zlib.crc32(wide[12:29]).to_bytes(4, "big") + head[33:]
    assert "megapixels" in page.post("picture?run=0", bomb)


def test_long_and_endless_bodies_are_not_read(page: Page) -> None:
    """Kills: a body read whole before its length is looked at, one without a length waited for."""
    large = str((32 << 20) + 1)
    status, headers, body = page.ask("POST", "/api/picture?run=0", None, Content_Length=large)
    assert status == 413 and "at most 32 MiB" in json.loads(body)["error"] and headers["connection"] == "close"
    assert page.ask("POST", "/api/sample", None, Content_Length="70000")[0] == 413
    assert page.ask("POST", "/api/sample", None, Content_Length="-1")[0] == 411
    assert page.ask("POST", "/api/sample", None, Content_Length="", Transfer_Encoding="chunked")[0] == 411


ORDERS: list[tuple[str, dict[str, Any], str]] = [
    ("reconstruct", {"picture": 99_999, "level": 1, "calls": 1, "seed": 0}, "forgotten this picture"),
    ("reconstruct", {"picture": 1, "level": "1", "calls": 1, "seed": 0}, "level is a number from -100 to 100"),
    ("reconstruct", {"picture": 1, "level": 1, "calls": 65, "seed": 0}, "calls is a number from 1 to 64"),
    ("reconstruct", {"picture": 1, "level": 1, "calls": 1.5, "seed": 0}, "calls is a whole number"),
    ("reconstruct", {"picture": 1, "level": 1, "calls": True, "seed": 0}, "calls is a number"),
    (
        "sample",
        {"run": 0, "count": 17, "label": "", "guidance": None, "steps": 1, "seed": 0},
        "count is a number from 1",
    ),
    ("sample", {"run": 0, "count": 1, "label": "cat", "guidance": 1, "steps": 1, "seed": 0}, "there is no class cat"),
    ("sample", {"run": 7, "count": 1, "label": "", "guidance": 1, "steps": 1, "seed": 0}, "no run number 7"),
    ("sample", {"run": 0, "count": 1, "label": 5, "guidance": 1, "steps": 1, "seed": 0}, "label is a text"),
    ("sample", {"run": 0, "count": 1, "label": "", "guidance": 1, "steps": 1, "seed": -1}, "seed is a number from 0"),
    ("train", {"data": "/etc", "bpp": 0.2, "size": "16", "length": "a try", "seed": 0}, "were not named when the page"),
    ("train", {"data": "glyphs --x", "bpp": 0.2, "size": "16", "length": "a try", "seed": 0}, "were not named"),
    ("train", {"data": "DATA", "bpp": 0.2, "size": "17", "length": "a try", "seed": 0}, "of the page's lists"),
    ("train", {"data": "DATA", "bpp": 0, "size": "16", "length": "a try", "seed": 0}, "bpp is a number from"),
    ("nothing", {}, "there is no such order"),
]


@pytest.mark.parametrize(("path", "order", "words"), ORDERS)
def test_orders_that_cannot_be_are_one_line(
    page: Page, tiny_source: Path, path: str, order: dict[str, Any], words: str
) -> None:
    """Kills: a path of a request opened, a number beyond its range computed with, a word taken for a command's."""
    order = {name: str(tiny_source) if value == "DATA" else value for name, value in order.items()}
    told = page.post(path, order)
    assert isinstance(told, str) and words in told and "\n" not in told
    assert page.jobs.folder is None


def test_questions_that_cannot_be_are_one_line(page: Page) -> None:
    """Kills: a file of the machine served, a run by its path, half a comparison."""
    assert page.get("watch?run=/etc") == "the run is missing from the request"
    assert page.get("watch?run=9") == "the page has no run number 9: load it again"
    assert page.get("compare?runs=0") == "choose two runs or more to put side by side"
    assert page.get("etc") == "there is no such question"
    assert page.post("sample", b"[1]") == page.post("sample", b"nan") == "the request is no JSON object"
    for path in ("/../../etc/passwd", "/page.py", "/server.py", "/%2e%2e/secret"):
        assert page.ask("GET", path)[0] == 404


def test_names_are_text_wherever_they_are_shown(tiny_run: Path, tmp_path: Path) -> None:
    """A folder whose name is markup. Kills: HTML of names in a comparison, which the page takes over as HTML."""
    import shutil

    evil = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(tiny_run, evil)
    with served([tiny_run, evil], tmp_path) as page:
        told = page.get("compare?runs=0,1")["html"]
        assert "<img src=x" not in told and "&lt;img src=x onerror=alert(1)&gt;" in told
        assert page.get("runs")["runs"][1]["name"] == evil.name


def test_a_run_that_is_being_trained_says_so(tiny_run: Path, tmp_path: Path) -> None:
    """And shows what there is; when it is done it is opened. Kills: a page that fails to begin, weights of half a run
    taken, a run never looked at again."""
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    (folder / ".lock").write_text(f"{os.getpid()}\n")
    with served([folder], tmp_path) as page:
        (one,) = page.get("runs")["runs"]
        assert one["state"] == "training" and "is being trained (stage2, step 4 of 4)" in one["why"]
        assert page.post("picture?run=0", _png(16, 16)) == one["why"]
        seen = page.get("watch?run=0")
        assert seen["state"] == "training" and seen["stages"][0]["latest"]["bpp"] > 0
        (folder / ".lock").unlink()
        assert page.get("runs")["runs"][0]["state"] == "ready"
        assert page.post("picture?run=0", _png(16, 16))["bits"] > 0


def test_a_run_that_was_stopped_says_how_to_go_on(tmp_path: Path) -> None:
    """Kills: a run without weights opened, a line without the way out."""
    files = RunFolder(tmp_path / "run")
    files.path.mkdir()
    files.config.write_text(json.dumps(to_dict(presets.get("tiny"))))
    with served([files.path], tmp_path) as page:
        (one,) = page.get("runs")["runs"]
        assert one["state"] == "stopped" and "go on with `unilat train" in one["why"]


def test_bad_beginnings_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kills: a traceback for a folder that is no run, a port in use, one that is none, another machine's address."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        for words, line in (
            ([str(tmp_path)], f"error: {tmp_path} is not a run folder"),
            (["--port", str(port)], f"error: port {port} of 127.0.0.1 is in use: choose another --port, or 0"),
            (["--port", "70000"], "error: --port 70000: a number from 0"),
            (["--host", "203.0.113.7"], "error: 203.0.113.7 cannot be listened on"),
        ):
            assert main(["ui", *words]) == 2
            told = capsys.readouterr().err
            assert told.startswith(line) and len(told.splitlines()) == 1


def test_what_the_page_may_train_on(tiny_source: Path) -> None:
    """Kills: pictures of a run that are gone offered, the named ones left out, one twice."""
    given = choices([str(tiny_source), "a"], ["glyphs", str(tiny_source), "/nowhere/at/all"])
    assert given == [str(tiny_source), "a", "glyphs"]


def test_an_order_is_the_command_somebody_would_type(tiny_source: Path, tmp_path: Path) -> None:
    """It parses to what was asked for. Kills: bits for the seed, the length of one stage alone, another folder."""
    from unilat.cli.configure import parse_train

    jobs = Jobs([str(tiny_source)], tmp_path)
    order = Order(data=str(tiny_source), bpp=0.25, size="32", length="short", seed=9)
    words = jobs.words(order, tmp_path / "page-1")
    parsed = parse_train(words[1:])
    assert words[0] == "train" and parsed.folder == tmp_path / "page-1"
    config = parsed.settings
    assert (config.stage1.target_bpp, config.data.size, config.seed) == (0.25, (32, 32), 9)
    assert (config.stage1.samples, config.stage2.samples) == (10_000, 10_000)


def test_a_training_is_begun_watched_and_stopped(tiny_source: Path, tmp_path: Path) -> None:
    """A process of its own, which saves and ends as after a signal; the page has the run, one at a time.

    Kills: a second training beside the first, a stop that loses what was learned, a folder written over, a training
    that outlives the page.
    """
    (tmp_path / "page-1").mkdir()
    with served([], tmp_path, [str(tiny_source)]) as page:
        order = {"data": str(tiny_source), "bpp": 0.4, "size": "16", "length": "longer", "seed": 1}
        begun = page.post("train", order)
        assert begun["run"] == 0 and begun["command"].endswith(f"--out {tmp_path / 'page-2'}")
        assert page.post("train", order) == f"{tmp_path / 'page-2'} is being trained: stop it first"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not page.get("watch?run=0")["stages"]:
            time.sleep(0.2)
        told = page.get("runs")
        assert told["training"]["running"] and told["runs"][0]["state"] == "training"
        stopped = page.post("stop", {})["training"]
        assert (stopped["running"], stopped["code"]) == (False, 143)
        assert any(RunFolder(tmp_path / "page-2").stage("stage1").glob("step-*"))
        assert page.get("runs")["runs"][0]["state"] == "stopped"
        assert page.post("stop", {}) == "nothing is being trained by this page"


def test_a_training_that_cannot_begin_is_told(tmp_path: Path) -> None:
    """Pictures that are gone by now. Kills: a run that is being started for ever, the reason lost with the process."""
    with served([], tmp_path / "out", [str(tmp_path / "gone")]) as page:
        order = {"data": str(tmp_path / "gone"), "bpp": 0.4, "size": "16", "length": "a try", "seed": 1}
        folder = tmp_path / "out" / "page-1"
        page.post("train", order)
        assert page.get("runs")["runs"][0]["why"] == f"{folder} is being started"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and page.jobs.running:
            time.sleep(0.1)
        assert page.jobs.code == 2
        (one,) = page.get("runs")["runs"]
        assert one["state"] != "training" and page.get("watch?run=0")["stages"] == []
        assert "gone" in page.get("runs")["training"]["said"][-1]


def test_the_command_opens_the_page_and_ends_with_ctrl_c(tiny_run: Path, tmp_path: Path) -> None:
    """Kills: an address that is not the page's, a server that hangs at its end or ends as a failure."""
    source = Path(__file__).parents[2] / "src"
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "unilat", "ui", str(tiny_run), "--port", "0"]
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are deaf to it
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path, preexec_fn=listening
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    address = line.split(" at ")[1].split(" ")[0]
    port = int(address.rsplit(":", 1)[1].strip("/"))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 200 OK")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    process.stderr.close()


def test_the_end_waits_for_a_run_that_is_being_opened(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: an interpreter that ends while torch is at work in a thread, which aborts it."""
    done = list[str]()

    def about(desk: Desk) -> None:
        time.sleep(0.5)
        done.append("opened")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Desk, "about", about)
    monkeypatch.setattr(Server, "serve_forever", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    serve([tiny_run], out=tmp_path, port=0, say=done.append)
    signal.signal(signal.SIGTERM, before)
    assert done[-1] == "opened"


def test_a_port_is_free_again(tiny_run: Path) -> None:
    """Kills: an address that stays taken after the page was closed."""
    server = opened(Desk([tiny_run]), Jobs([], Path("runs")), "127.0.0.1", 0)
    port = server.server_address[1]
    server.server_close()
    opened(Desk([tiny_run]), Jobs([], Path("runs")), "127.0.0.1", port).server_close()
    with pytest.raises(UserError, match="a number from 0"):
        opened(Desk([]), Jobs([], Path("runs")), "127.0.0.1", -1)


def test_pictures_are_small_and_whole(page: Page) -> None:
    """Kills: a picture cut, or sent at another size than the run's."""
    told = page.post("picture?run=0", _png(32, 48))
    assert told["converted"] == ["cropped", "resized"] and told["shape"] == [32, 48]
    data = base64.b64decode(told["original"].split(",")[1])
    assert Image.open(io.BytesIO(data)).size == (16, 16)
