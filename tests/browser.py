"""Looking at a page in headless Chromium, as a reader's browser would."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

WIDTHS = (360, 1600)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)

# What is wrong with the page as it is laid out now, as a list of words.
_SCRIPT = """
const width = arguments[0];  // innerWidth grows with the page on a small screen
const problems = [];
const name = node => node.id || node.alt || node.textContent.trim().slice(0, 50) || node.tagName;
const shown = node => {
  const box = node.getBoundingClientRect();
  return node.checkVisibility({visibilityProperty: true, opacityProperty: true})
    && box.width > 0 && box.height > 0;
};
const root = document.documentElement;
if (root.scrollWidth > width)
  problems.push(`the page is ${root.scrollWidth} px wide in a window of ${width}`);
for (const image of document.images) {
  if (!image.complete || !image.naturalWidth) problems.push(`image not loaded: ${name(image)}`);
  if (!shown(image)) problems.push(`image not visible: ${name(image)}`);
}
for (const node of document.querySelectorAll('.verdict')) {
  if (!shown(node)) problems.push(`verdict not visible: ${name(node)}`);
  for (const cell of node.querySelectorAll('td, th')) {
    const box = cell.getBoundingClientRect();
    if (box.width && (box.right > width + 1 || box.left < 0))
      problems.push(`cell out of the window: ${name(cell)}`);
  }
}
for (const link of document.querySelectorAll('a[href^="#"]'))
  if (!document.getElementById(link.hash.slice(1))) problems.push(`dead link: ${link.hash}`);
const ids = [...document.querySelectorAll('[id]')].map(node => node.id);
for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i)))
  problems.push(`id used twice: ${id}`);
for (const entry of performance.getEntriesByType('resource'))
  if (!entry.name.startsWith('data:')) problems.push(`asked for ${entry.name}`);
return problems;
"""


def installed() -> bool:
    """Whether Chromium and its driver are here."""
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A headless Chromium with a fresh profile that keeps its console's log."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = Options()
        options.binary_location = shutil.which("chromium") or "chromium"
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


def check_page(
    path: str | Path, *, screenshots: str | Path | None = None, dark: bool = False
) -> list[str]:
    """What a reader would find broken in the page at `path`, at each of `WIDTHS`; [] if nothing.

    Console messages, images that are missing or hidden, verdict rows that are hidden or cut off,
    horizontal scrolling of the page, dead links, double ids and requests beyond the page itself.
    With `screenshots`, a folder, a picture of the whole page is left for each width.
    """
    problems = []
    with browser() as driver:
        if dark:
            features = [{"name": "prefers-color-scheme", "value": "dark"}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        for width in WIDTHS:
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.get(Path(path).resolve().as_uri())
            found = driver.execute_script(_SCRIPT, width)
            if not driver.find_elements("css selector", "h1"):
                found.append("no title")
            found += [f"console: {entry['message']}" for entry in driver.get_log("browser")]
            problems += [f"at {width} px: {problem}" for problem in found]
            if screenshots:
                _picture(driver, Path(screenshots) / f"{width}{'-dark' * dark}.png")
    return problems


def _picture(driver: webdriver.Chrome, path: Path) -> None:
    import base64

    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(shot["data"]))


def screenshot(page: str | Path, picture: str | Path) -> None:
    """Write the top of a page as a wide window shows it."""
    with browser() as driver:
        size = {"width": 1400, "height": 1250, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(Path(page).resolve().as_uri())
        driver.save_screenshot(str(picture))


if __name__ == "__main__":
    screenshot(*sys.argv[1:3])
