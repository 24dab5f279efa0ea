"""A headless Chromium to look at a page with, over its debugging protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def executable() -> str | None:
    """The browser of this machine, or that of the environment variable CHROMIUM."""
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES)]
    return next((path for path in found if path), None)


class Page:
    """A page in a browser of its own; a context manager.

    `messages` holds what its console said, errors and refused requests among it, and `requests`
    the addresses it asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._folder, self._number = folder, 0

    def __enter__(self) -> Page:
        self._process = subprocess.Popen(
            [
                executable(), "--headless=new", "--no-sandbox", "--disable-gpu",
                "--hide-scrollbars", "--disable-dev-shm-usage", "--remote-debugging-port=0",
                "--remote-allow-origins=*", "--no-first-run", f"--user-data-dir={self._folder}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        told = self._folder / "DevToolsActivePort"
        until = time.monotonic() + 60
        while not (told.exists() and len(told.read_text().split()) == 2):
            assert self._process.poll() is None and time.monotonic() < until, "it does not start"
            time.sleep(0.1)
        port, path = told.read_text().split()
        self._socket = websocket.create_connection(f"ws://127.0.0.1:{port}{path}", timeout=60)
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = None
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for name in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{name}.enable")
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)

    def ask(self, method: str, **parameters) -> dict:
        """A command of the protocol, and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._hear(answer)

    def _hear(self, event: dict) -> None:
        told = event.get("params", {})
        if event["method"] == "Runtime.consoleAPICalled":
            self.messages.append(json.dumps(told["args"]))
        elif event["method"] == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(told["exceptionDetails"]))
        elif event["method"] == "Log.entryAdded":
            self.messages.append(told["entry"]["text"])
        elif event["method"] == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])

    def open(self, path: Path, width: int, height: int, *, phone: bool = False) -> None:
        """Open a file in a window of a size in CSS pixels."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        self.ask("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.ask("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + 60
        while self.run("document.readyState") != "complete":
            assert time.monotonic() < until, "the page does not load"
            time.sleep(0.1)
        # Figures below the window load when one comes to them.
        self.run("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
        self.run("Promise.all([...document.images].map(i => i.decode())).then(() => 1)")

    def run(self, script: str):
        """The value of an expression of JavaScript, a promise's when it is kept."""
        answer = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def key(self, name: str) -> None:
        """Press a key: ArrowRight, Tab, Home."""
        code = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9}[name]
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=name, code=name,
                     windowsVirtualKeyCode=code)  # fmt: skip

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """The mouse pressed at one point, moved to another and released."""
        for kind, (x, y) in [("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)]:
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1,
                     clickCount=1)  # fmt: skip

    def swipe(self, start: tuple[float, float], end: tuple[float, float], steps: int = 8) -> None:
        """A finger put down at one point, moved to another and lifted."""
        self.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[_point(start)])
        for i in range(1, steps + 1):
            at = [a + (b - a) * i / steps for a, b in zip(start, end)]
            self.ask("Input.dispatchTouchEvent", type="touchMove", touchPoints=[_point(at)])
        self.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """The page, or what the window shows of it, as PNG."""
        answer = self.ask("Page.captureScreenshot", captureBeyondViewport=whole,
                          **({"clip": self._whole()} if whole else {}))  # fmt: skip
        path.write_bytes(base64.b64decode(answer["data"]))

    def _whole(self) -> dict:
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}


def _point(at) -> dict:
    return {"x": at[0], "y": at[1]}
