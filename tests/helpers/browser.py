"""A headless Chromium that shows files, and says what it logged and what it asked the network for."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """A browser with one page."""

    def __init__(self, driver: Any) -> None:  # noqa: ANN401 - selenium's
        self.driver = driver

    def show(self, page: Path, *, width: int = 1280, height: int = 1000, dark: bool = False) -> None:
        """Open a page in a window of a size, as a user who prefers light or dark sees it."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(page.resolve().as_uri())

    def run(self, script: str, *arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Run a script; returns what it returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Return the text of the first element."""
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def count(self, selector: str) -> int:
        """Return the elements that are shown."""
        script = "return [...document.querySelectorAll(arguments[0])].filter((one) => one.offsetParent !== null).length"
        return int(self.run(script, selector))

    def find(self, selector: str) -> Any:  # noqa: ANN401 - selenium's
        """Return an element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def tab(self) -> str:
        """Press Tab; returns what is focused then: its tag, id and text."""
        self.driver.switch_to.active_element.send_keys(Keys.TAB)
        script = "const one = document.activeElement; return [one.tagName, one.id, one.textContent.trim().slice(0, 30)]"
        return " ".join(self.run(script))

    def logged(self) -> list[str]:
        """Return what the console holds since the page was opened."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]

    def requested(self) -> list[str]:
        """Return every address that was asked for since the page was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [
            str(message["params"]["request"]["url"])
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield a browser with a profile of its own, which is removed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
