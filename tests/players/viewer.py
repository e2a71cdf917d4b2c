"""A viewer in front of the player: a browser profile of its own, the page, and all that the page did wrong."""

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Request, expect

HERE = Path(__file__).parent
SCRIPTS = tuple((HERE / name).read_text() for name in ("watched.js", "appended.js"))
PATIENCE_MS = 30_000

expect.set_options(timeout=PATIENCE_MS)


class Viewer:
    """Opens the page. What they ask of it is by role and name, as people find it."""

    def __init__(self, browser: Browser, url: str, query: str = "", **profile: Any) -> None:
        """``profile``: of Playwright's ``new_context``."""
        self.url, self.query = url, query
        self.context = browser.new_context(**profile)
        self.context.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        """What no page may do: errors on its console, promises that fail unheard, requests to other hosts."""
        self.expected: list[str] = []
        """Statuses of refusals that a test asks for: the browser notes them on the console by itself."""
        self.page = self.context.new_page()
        for script in SCRIPTS:
            self.page.add_init_script(script)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", self._see)
        self.page.goto(url + query)

    def close(self) -> None:
        """Leave, and see that the page behaved."""
        self.context.close()
        assert self.complaints == [], self.complaints

    # --- what they do ---

    def find(self, role: Any, name: str) -> Locator:
        """One element by its role and its whole name."""
        return self.page.get_by_role(role, name=name, exact=True)

    def start(self, prompt: str = "a red star", *, seconds: str = "") -> None:
        """Have a video made."""
        if not self.find("group", "Settings").is_visible():
            self.page.click("#settings-toggle")
        self.find("spinbutton", "Length in seconds").fill(seconds)
        self.find("textbox", "Prompt").fill(prompt)
        self.find("button", "Start").click()

    def change(self, prompt: str) -> None:
        """Have it follow another prompt."""
        self.find("textbox", "Prompt").fill(prompt)
        self.find("button", "Change the prompt").click()

    # --- what they see ---

    def sees(self, *states: str) -> None:
        """Wait until the page says that it stands so."""
        pattern = re.compile(f"^({'|'.join(states)})$")
        expect(self.page.locator("#state")).to_have_attribute("data-state", pattern)

    def until(self, condition: str) -> None:
        """Wait in the page, whose policy lets nobody evaluate text, until it holds."""
        self.page.evaluate(
            f"""new Promise((done, fail) => {{
              const until = performance.now() + {PATIENCE_MS};
              (function look() {{
                if ({condition}) done();
                else if (performance.now() < until) setTimeout(look, 20);
                else fail(new Error("it did not come true"));
              }})();
            }})"""
        )

    def plays_on(self, seconds: float = 0.3) -> None:
        """Wait until the picture has moved on by so much."""
        self.until(f"video.currentTime > {self.time_s + seconds} && !video.paused")

    @property
    def time_s(self) -> float:
        """Playback time of what is shown."""
        return float(self.page.evaluate("video.currentTime"))

    @property
    def appended(self) -> list[int]:
        """Sequence numbers of the fragments that were handed to the browser: block + 1 each."""
        return list(self.page.evaluate("appended"))

    def shows_its_moment(self) -> bool:
        """Whether the picture has the number of its moment painted on it, at 16 a second."""
        number, time_s = self.page.evaluate("[shownNumber(video), video.currentTime]")
        return abs(number - time_s * 16) < 3

    # --- what they hear ---

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not self._is_expected(message.text):
            self.complaints.append(f"console: {message.text}")

    def _is_expected(self, text: str) -> bool:
        return text.startswith("Failed to load resource") and any(words in text for words in self.expected)

    def _see(self, request: Request) -> None:
        if not request.url.startswith((self.url, f"blob:{self.url}", "data:")):
            self.complaints.append(f"request to {request.url}")
