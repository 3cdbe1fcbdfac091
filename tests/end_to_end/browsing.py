"""Headless Chromium, driven by selenium: what the page shows, and what the browser did for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.polling import until

FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "window-size=1400,1000"),
)
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}


@dataclass(frozen=True)
class Browser:
    """A browser of its own profile."""

    driver: Chrome

    def open(self, url: str) -> None:
        """Go there, with nothing kept from before and nothing logged yet."""
        self.driver.get("about:blank")
        self.drain()
        self.driver.get(url)

    def all(self, selector: str) -> list[WebElement]:
        """Elements that a CSS selector finds."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The one that a CSS selector finds, once it is there and shown."""
        until(lambda: any(found.is_displayed() for found in self.all(selector)), f"{selector} to be shown")
        return next(found for found in self.all(selector) if found.is_displayed())

    def text(self, selector: str = "body") -> str:
        """What can be read there; drawing anew may have just taken it away."""
        script = "const found = document.querySelector(arguments[0]); return found ? found.innerText : ''"
        return str(self.driver.execute_script(script, selector))

    def shows(self, words: str, selector: str = "body") -> None:
        """Wait until words can be read."""
        until(lambda: words in self.text(selector), f"{words!r} to be shown in {selector}")

    def press(self, selector: str) -> None:
        """Click."""
        self.one(selector).click()

    def run(self, script: str) -> Any:
        """The value of a script."""
        return self.driver.execute_script(script)

    def errors(self) -> list[str]:
        """What the console says of errors and of violated policies, since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def hosts(self) -> set[str]:
        """Where requests went since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in sent if not url.startswith(("data:", "about:", "blob:"))}

    def drain(self) -> None:
        """Forget what was logged."""
        self.errors()
        self.hosts()

    @contextmanager
    def phone(self) -> Iterator[None]:
        """A phone's screen."""
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """Debian's Chromium; a test that needs it is skipped where it is not."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver; apt-get install chromium-driver")
    options = Options()
    options.binary_location = chromium
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=Service(driver))
    try:
        yield Browser(browser)
    finally:
        browser.quit()
