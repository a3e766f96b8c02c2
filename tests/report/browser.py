"""A headless Chromium without a network, driven by the DevTools protocol over two pipes."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 300
"""Seconds that an answer may take on a machine with much else to do."""
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Escape": 27, "Tab": 9, " ": 32}


def chromium() -> str | None:
    """The path of a Chromium, or None without one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """A running Chromium; `tab` opens a file in it."""

    def __init__(self, path: str, profile: Path):
        theirs, self._to = os.pipe()
        self._from, answers = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                   "--disable-background-networking", "--no-first-run", "--remote-debugging-pipe",
                   f"--user-data-dir={profile}"]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{theirs} 4>&{answers}', path, *options],
            pass_fds=(theirs, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(answers)
        self._rest, self._sent, self.events = b"", 0, list[dict[str, Any]]()

    def close(self) -> None:
        """End the browser."""
        try:
            self.call("Browser.close")
            self._process.wait(60)
        except (OSError, EOFError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to a call of the protocol; events that come before it are kept in `events`."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._sent:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def event(self, name: str, session: str) -> None:
        """Wait for an event of a tab."""
        while not any(event.get("method") == name and event.get("sessionId") == session for event in self.events):
            self.events.append(self._receive())

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            if not select.select([self._from], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("no answer from the browser")
            received = os.read(self._from, 1 << 20)
            if not received:
                raise EOFError("the browser ended")
            self._rest += received
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    @contextmanager
    def tab(
        self, page: Path, width: int = 1200, height: int = 900, *, dark: bool = False, script: bool = True
    ) -> Iterator["Tab"]:
        """A page in a window of this size, in a light or dark scheme, with or without script."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        tab.call("Emulation.setScriptExecutionDisabled", value=not script)
        tab.scheme(dark=dark)
        tab.call("Page.navigate", url=page.as_uri())
        self.event("Page.loadEventFired", session)
        if script:
            tab.run("Promise.all([...document.images].map(image => image.decode().catch(() => 0))).then(() => 1)")
            tab.run(FRAMES)
        yield tab
        self.call("Target.closeTarget", targetId=target)


FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(1)))))"
"""Two frames later everything is painted."""


class Tab:
    """A page in the browser."""

    def __init__(self, browser: Browser, session: str):
        self._browser, self._session = browser, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a call of the protocol."""
        return self._browser.call(method, self._session, **parameters)

    def scheme(self, *, dark: bool, media: str = "") -> None:
        """Choose light or dark, and the medium ("print")."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[feature])

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settled(self) -> None:
        """Wait until what was begun is painted."""
        self.run("Promise.resolve(globalThis.drawn).then(() => 1)")
        self.run(FRAMES)

    def press(self, key: str, times: int = 1) -> None:
        """Press a key."""
        for _ in range(times):
            parts = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            text = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", **parts, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **parts)
        self.settled()

    def point(self, selector: str, x: float = 0.5, y: float = 0.5, *, click: bool = False) -> None:
        """Move the mouse to a place in an element, as shares of its width and height, and perhaps click."""
        left, top = self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            " one.scrollIntoView({block: 'center'}); const box = one.getBoundingClientRect();"
            f" return [box.left + {x} * box.width, box.top + {y} * box.height]; }})()"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=left, y=top)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, x=left, y=top, button="left", clickCount=1)
        self.settled()

    def shot(self, path: Path | None = None, *, whole: bool = True) -> bytes:
        """A picture of the page as PNG."""
        options: dict[str, Any] = {"captureBeyondViewport": True} if whole else {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
        picture = base64.b64decode(self.call("Page.captureScreenshot", **options)["data"])
        if path:
            path.write_bytes(picture)
        return picture

    def messages(self) -> list[str]:
        """What the page wrote to the console, errors and refused requests included."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"])[:500] for event in self._own() if event["method"] in kinds]

    def requests(self) -> list[str]:
        """The addresses that the page asked for, other than itself and what it contains."""
        asked = [
            event["params"]["request"]["url"] for event in self._own() if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked[1:] if not url.startswith("data:")]

    def _own(self) -> list[dict[str, Any]]:
        return [event for event in self._browser.events if event.get("sessionId") == self._session]
