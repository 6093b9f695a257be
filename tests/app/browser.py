"""A headless Chromium, driven through chromedriver's own protocol: no package is needed for it."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""What the protocol names an element by."""


class Browser:
    """One window."""

    def __init__(self, address: str):
        self._address = address

    def _ask(self, method: str, path: str, order: dict[str, Any] | None = None) -> Any:
        data = None if order is None else json.dumps(order).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]

    def open(self, address: str) -> None:
        """Load a page."""
        self._ask("POST", "/url", {"url": address})

    def run(self, script: str, *given: object) -> Any:
        """What a script returns, ``arguments`` among its names."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(given)})

    def _find(self, selector: str) -> str:
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])

    def click(self, selector: str) -> None:
        """Press it, as a person would: it must be seen and uncovered."""
        self._ask("POST", f"/element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Type into it, after what is there was taken out; files are named by their paths, a line each."""
        element = self._find(selector)
        if not self.run("return document.querySelector(arguments[0]).type === 'file'", selector):
            self._ask("POST", f"/element/{element}/clear", {})
        self._ask("POST", f"/element/{element}/value", {"text": text})

    def set(self, selector: str, value: object) -> None:
        """A slider or a list at this value, told as the browser tells it."""
        script = (
            "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
            "for (const name of ['input', 'change']) e.dispatchEvent(new Event(name, {bubbles: true}))"
        )
        self.run(script, selector, str(value))

    def text(self, selector: str) -> str:
        """What is read there."""
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def wait(self, script: str, what: str, seconds: float = 90.0) -> Any:
        """Until a script returns something true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := self.run(script):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{what} did not come; trouble: {self.text('#trouble')!r}")

    def look(self, *, wide: int, high: int = 900, dark: bool = False) -> None:
        """The window's size, and what the reader prefers."""
        size = {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": wide < 500}
        scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        for command, parameters in (("setDeviceMetricsOverride", size), ("setEmulatedMedia", scheme)):
            self._ask("POST", "/goog/cdp/execute", {"cmd": f"Emulation.{command}", "params": parameters})

    def picture(self, path: Path) -> None:
        """Keep what is seen, the whole page."""
        size = self.run("const d = document.documentElement; return [d.scrollWidth, d.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        order = {"cmd": "Page.captureScreenshot", "params": {"clip": clip, "captureBeyondViewport": True}}
        path.write_bytes(base64.b64decode(self._ask("POST", "/goog/cdp/execute", order)["data"]))

    def told(self) -> list[str]:
        """What the console has been told since the last time, warnings and errors."""
        return [one["message"] for one in self._ask("POST", "/se/log", {"type": "browser"})]

    def asked(self) -> list[str]:
        """The addresses asked for since the last time; the browser's own pages, and data in a page, are none."""
        rows = (json.loads(one["message"])["message"] for one in self._ask("POST", "/se/log", {"type": "performance"}))
        sent = [row["params"]["request"]["url"] for row in rows if row["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "blob:", "chrome:", "chrome-", "about:"))]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser of its own profile, closed at the end."""
    driver = subprocess.Popen([str(DRIVER), "--port=0"], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    try:
        port = next(line.rstrip(".\n").split()[-1] for line in driver.stdout if "successfully on port" in line)
        options = {"binary": str(CHROMIUM), "args": [*FLAGS.split(), f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        browser = Browser(f"http://127.0.0.1:{port}/session")
        session = browser._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        browser._address += f"/{session['sessionId']}"
        yield browser
        browser._ask("DELETE", "")
    finally:
        driver.terminate()
        driver.wait()
        driver.stdout.close()
