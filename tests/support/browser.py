"""A real browser on the Airflow UI: starting Chromium, logging in, looking at colours and focus, taking pictures."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any

from tests.support.airflow import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, FrameLocator, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "no Chromium on this machine: apt install chromium"
# With it the pictures of the documentation are taken anew; otherwise they are left for whoever runs the tests to look at.
IMAGES_VARIABLE = "OCEAN_DOCS_IMAGES"
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1440, "height": 1000}

# WCAG 2: how much lighter the lighter of two colours is; text needs 4.5. The canvas knows every way to write a colour.
_CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const background = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("main *")) {
    const text = [...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
    if (!text || !element.checkVisibility() || element.closest("svg")) continue;
    const [a, b] = [luminance(rgba(getComputedStyle(element).color)), luminance(background(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, `${element.tagName} ${element.className} "${element.textContent.trim().slice(0, 40)}"`]);
  }
  return found;
}
"""
# What has the focus: its place in the document, what it says, and whether one can see that it has the focus.
_FOCUSED = """
() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const style = getComputedStyle(element);
  const all = [...document.querySelectorAll("*")];
  return {
    place: all.indexOf(element),
    name: element.getAttribute("aria-label") || element.textContent.trim() || element.getAttribute("name") || element.tagName,
    visible: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
  };
}
"""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: Page, url: str, user: str, password: str) -> None:
    """Log in to Airflow as a person does.

    :param url: Airflow's root
    """
    page.goto(f"{url}/auth/login")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "/login" not in address)


def ocean_frame(page: Page) -> FrameLocator:
    """Return the page of the package that the Airflow UI shows in a frame."""
    return page.frame_locator("iframe[title^=Ocean]")


def contrasts(page: Page) -> list[tuple[float, str]]:
    """Return the contrast of every text of a page with what is behind it, and which text that is."""
    found: list[tuple[float, str]] = page.evaluate(_CONTRAST)
    return found


def tab_through(page: Page, most: int = 300) -> list[dict[str, Any]]:
    """Press Tab from the top of the page until the focus leaves it; return what had the focus."""
    seen: list[dict[str, Any]] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        focused = page.evaluate(_FOCUSED)
        if focused is None or (seen and focused["place"] == seen[0]["place"]):
            return seen
        seen.append(focused)
    raise AssertionError(f"the focus does not leave the page; at last it was on {seen[-3:]}")


def is_too_wide(page: Page) -> bool:
    """Say whether one has to scroll sideways to read the page."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def screenshot(page: Page, name: str, *, documented: bool = False) -> Path:
    """Take a picture to look at, below ``build/``.

    :param documented: whether the documentation shows it; it is put there when that is asked for
    """
    renew = documented and os.environ.get(IMAGES_VARIABLE)
    folder = PROJECT / ("docs/images" if renew else "build/screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    return path
