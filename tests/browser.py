"""A headless Chromium, driven through its pipe by the DevTools protocol, without a package."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35, "Tab": 9,
        "Enter": 13, " ": 32}  # fmt: skip


def found() -> str:
    """The path of a Chromium; "" if there is none. BROWSER_FOR_TESTS names another."""
    named = os.environ.get("BROWSER_FOR_TESTS", "")
    return named or next(filter(None, map(shutil.which, NAMES)), "")


NEEDED = pytest.mark.skipif(
    not found(), reason="no Chromium: install one (apt-get install chromium)"
)
"""The mark of tests in a browser, which take the fixture `page`."""


class Page:
    """A page in the browser. events: what the browser told, in order."""

    def __init__(self, write: int, read: int):
        self._write, self._read, self._rest, self._number = write, read, b"", 0
        self._session = ""
        self.events: list[dict] = []

    def send(self, method: str, **parameters) -> dict:
        """The result of a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        limit = time.monotonic() + PATIENCE
        while True:
            answer = self._next(limit)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _next(self, limit: float) -> dict:
        while b"\0" not in self._rest:
            ready = select.select([self._read], [], [], max(0.0, limit - time.monotonic()))[0]
            content = os.read(self._read, 1 << 20) if ready else b""
            assert content, "the browser does not answer"
            self._rest += content
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def begin(self) -> None:
        """Attaches to a new page and listens to its console and its network."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def open(self, path: Path) -> None:
        """Opens a file and waits until it is loaded."""
        self.events.clear()
        self.send("Page.navigate", url=path.absolute().as_uri())
        limit = time.monotonic() + PATIENCE
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._next(limit))

    def value(self, expression: str) -> object:
        """The value of an expression of JavaScript in the page."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, *keys: str) -> None:
        """Presses keys one after the other."""
        for key in keys:
            text = {"Enter": "\r", " ": " "}.get(key)
            about = {"key": key, "code": "Space" if key == " " else key,
                     "windowsVirtualKeyCode": KEYS[key]}  # fmt: skip
            down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
            self.send("Input.dispatchKeyEvent", **about, **down)
            self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def resize(self, width: int, height: int = 900, mobile: bool = False) -> None:
        """Gives the page a size in pixels."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if mobile else 1, mobile=mobile)  # fmt: skip

    def prefer(self, scheme: str) -> None:
        """Makes the system prefer "light" or "dark"."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def picture(self, path: Path, whole: bool = True) -> None:
        """Saves a screenshot, of the whole page or of what is seen, as PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        given = {"clip": clip, "captureBeyondViewport": True} if whole else {}
        taken = self.send("Page.captureScreenshot", format="png", **given)
        path.write_bytes(base64.b64decode(taken["data"]))

    def requests(self) -> list[str]:
        """The addresses that the page asked for, besides those inside it."""
        sent = [e for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        urls = [e["params"]["request"]["url"] for e in sent]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """Errors and warnings of the console."""
        said = []
        for event in self.events:
            about = event.get("params", {})
            if event.get("method") == "Log.entryAdded":
                said.append(about["entry"]["text"])
            elif event.get("method") == "Runtime.exceptionThrown":
                said.append(json.dumps(about["exceptionDetails"]))
            elif event.get("method") == "Runtime.consoleAPICalled":
                said.append(json.dumps(about["args"]))
        return said


@contextlib.contextmanager
def opened(program: str, profile: Path) -> Iterator[Page]:
    """A page in a browser of its own. profile: the folder of its files."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    flags = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={profile}",
    ]  # fmt: skip
    # The browser reads commands from descriptor 3 and writes answers to 4.
    script = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", script, program, *flags, "about:blank"], pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        page = Page(ours_out, ours_in)
        page.begin()
        yield page
        page.send("Browser.close") if process.poll() is None else None
    finally:
        os.close(ours_out)
        os.close(ours_in)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
