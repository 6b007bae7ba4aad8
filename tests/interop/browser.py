"""Headless Chromium, driven over its DevTools protocol: opens pages and evaluates JavaScript in them."""

import contextlib
import itertools
import json
import os
import signal
import subprocess

from libraries import Websockets

from harness import PATIENCE, plain_environment, wait_until

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
         "--remote-debugging-port=0")


class Browser:
    """One process with an empty profile in `folder`; page() opens a page in a tab of its own."""

    def __init__(self, folder):
        self.port_file = os.path.join(folder, "DevToolsActivePort")
        self.log = open(os.path.join(folder, "log"), "wb")
        self.process = subprocess.Popen(["chromium", *FLAGS, f"--user-data-dir={folder}", "about:blank"],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        env=plain_environment(), start_new_session=True)
        try:
            port, path = wait_until(self.where_it_listens, "Chromium's DevTools port", 4 * PATIENCE)
            self.devtools = Websockets(f"ws://127.0.0.1:{port}{path}", False)
        except BaseException:
            self.kill()
            raise
        self.numbers = itertools.count(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.devtools.__exit__()
        self.kill()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # it is the leader of a session of its own
        self.process.wait()
        self.log.close()

    def where_it_listens(self):
        """(port, path), or None as long as the file is not written."""
        assert self.process.poll() is None, f"Chromium has exited with {self.process.returncode}: see {self.log.name}"
        with contextlib.suppress(FileNotFoundError), open(self.port_file) as f:
            lines = f.read().split("\n")
            return lines if len(lines) == 2 and lines[1] else None

    def call(self, method, session=None, **parameters):
        number = next(self.numbers)
        order = {"id": number, "method": method, "params": parameters}
        self.devtools.send(json.dumps({**order, "sessionId": session} if session else order))
        while True:  # events are passed over
            answer = json.loads(self.devtools.recv())
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def page(self, url, before=""):
        """before: a script that runs before those of the page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        page = Page(self, target, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        page.call("Page.enable")
        page.call("Performance.enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        page.leave(url)
        wait_until(lambda: page.evaluate("document.readyState") == "complete"
                   and page.evaluate("location.href").startswith(url), f"page {url}")
        return page


class Page:
    def __init__(self, browser, target, session):
        self.browser = browser
        self.target = target
        self.session = session

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def leave(self, url="about:blank"):
        """Goes to another URL."""
        self.call("Page.navigate", url=url)

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)

    def to_front(self):
        self.call("Page.bringToFront")

    def layouts(self):
        """How often it was laid out."""
        return next(one["value"] for one in self.call("Performance.getMetrics")["metrics"] if one["name"] == "LayoutCount")

    def evaluate(self, expression):
        """The value of the expression; of a promise, when it is kept."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")
