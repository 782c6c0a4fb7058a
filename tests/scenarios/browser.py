"""Drives a real Chromium, as far as a page test needs it: opens a page, asks it things, takes its picture.

Chromium's DevTools protocol over its debugging pipe: file descriptors 3 (to it) and 4 (from it), JSON messages that end
with a zero byte (https://chromedevtools.github.io/devtools-protocol/, --remote-debugging-pipe).
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

WAIT_S = 60.0
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
         "--remote-debugging-pipe")
# Puts the two ends of the pipes where Chromium looks for them, by way of numbers beyond both, and becomes Chromium.
PLACE = """
import os, sys
high = [os.dup2(int(word), 100 + at) for at, word in enumerate(sys.argv[1:3])]
for fd, wanted in zip(high, (3, 4)):
    os.dup2(fd, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """`with Browser(program, folder) as browser`; one page, whose errors are kept in `errors`."""

    def __init__(self, program: str, folder: Path) -> None:
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        self._held, self._number, self._session = b"", 0, ""
        self.errors: list[str] = []
        command = [sys.executable, "-c", PLACE, str(theirs_in), str(theirs_out), program, *FLAGS,
                   f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                         pass_fds=(theirs_in, theirs_out), start_new_session=True)
        os.close(theirs_in)
        os.close(theirs_out)

    def __enter__(self) -> Browser:
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        os.close(self._to)  # it ends when its pipe does
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                if "error" in found:
                    raise ValueError(f"{method}: {found['error']}")
                return dict(found["result"])
            self._note(found)

    def look(self, width: int, height: int, colours: str) -> None:
        """Sets the window's size in CSS pixels, and the reader's preference: light or dark."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                 mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": colours}])

    def open(self, url: str) -> None:
        """Goes to a page and waits until it is there."""
        failed = self.ask("Page.navigate", url=url).get("errorText")
        if failed:
            raise ValueError(f"{url}: {failed}")
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise ValueError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        return str(self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    def wait_for(self, expression: str) -> None:
        end = time.monotonic() + WAIT_S
        while not self.value(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression}; the page says: {self.text('body')}")
            time.sleep(0.05)

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            readable, _, _ = select.select([self._from], [], [], WAIT_S)
            data = os.read(self._from, 1 << 16) if readable else b""
            if not data:
                raise TimeoutError("the browser does not answer")
            self._held += data
        message, _, self._held = self._held.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
