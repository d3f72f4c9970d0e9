"""A picture of every page at two widths, and what a browser complains about on the way.

`make screens` writes them into docs/screens/ and fails where a page logs an error, breaks the
content security policy, or scrolls sideways on a phone or at a width in between.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = {1440: 900, 390: 844}
PHONE = 390
BETWEEN = (768, 820, 900, 1024, 1060, 1200)  # on both sides of where the bar becomes a menu
LARGEST_PICTURE = 200_000
SCALES = (1.0, 0.75, 0.5, 0.35)
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE_SECONDS = 60
# Collects what the policy refuses; a page's own scripts cannot do this for themselves.
NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} refuses ${event.blockedURI}`);
});
"""


@dataclass(frozen=True)
class Screen:
    name: str
    person: str
    path: str
    status: int = 200


@dataclass(frozen=True)
class Shot:
    size: int
    complaints: list[str]


# ReDoc asks for a picture of its makers; the policy blocks it, which is meant.
KNOWN_AND_BLOCKED = "cdn.redoc.ly"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "screens")
    parser.add_argument("--only", default="", help="pages whose name begins with this")
    parser.add_argument("--chromium", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="techlife-screens-") as data_dir:
        os.environ.update(
            TECHLIFE_DATA_DIR=data_dir,
            DJANGO_SETTINGS_MODULE="techlife.settings",
            TECHLIFE_LOG_LEVEL="WARNING",
        )
        say("Training hospitals to look at")
        screens, sessions = prepare(Path(data_dir))
        screens = [screen for screen in screens if screen.name.startswith(options.only)]
        with serving() as site:
            shots = take_all(site, screens, sessions, options.folder, options.chromium)
    num_bytes = sum(shot.size for shot in shots.values())
    say(f"{len(shots)} pictures, {num_bytes / 1e6:.1f} MB, in {options.folder}")
    bad = {name: shot.complaints for name, shot in shots.items() if shot.complaints}
    for name, complaints in sorted(bad.items()):
        say("\n    ".join([f"{name}:", *complaints]))
    return 1 if bad else 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def prepare(data_dir: Path) -> tuple[list[Screen], dict[str, str]]:
    """Fill the database; returns what to look at, and each person's session."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0, interactive=False)
    from tests import screen_world

    return screen_world.prepare(data_dir)


@contextmanager
def serving() -> Iterator[str]:
    """The site on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    site = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "gunicorn", "techlife.wsgi", "--threads=4"]
    options = [f"--bind=127.0.0.1:{port}", "--log-level=warning"]
    server = subprocess.Popen([*command, *options], cwd=ROOT)
    try:
        _wait_for(f"{site}/healthz", server)
        yield site
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)


def _wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError("the site does not start")


def take_all(
    site: str, screens: list[Screen], sessions: dict[str, str], folder: Path, chromium: str
) -> dict[str, Shot]:
    from tqdm import tqdm

    shots = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        todo = [(screen, width) for screen in screens for width in WIDTHS]
        for screen, width in tqdm(todo, desc="Looking", unit=" pages", disable=None, leave=False):
            name = f"{screen.name}-{width}"
            session = sessions.get(screen.person, "")
            shots[name] = take(browser, site, screen, width, session, folder / f"{name}.png")
        browser.close()
    return shots


def take(browser: Browser, site: str, screen: Screen, width: int, session: str, path: Path) -> Shot:
    """One picture, made smaller until it is small enough to keep."""
    for scale in SCALES:
        context = _context(browser, site, width, scale, session)
        page = context.new_page()
        complaints = _open(page, site + screen.path, screen.status)
        page.screenshot(path=path, full_page=True)
        if width == PHONE:
            complaints += _sideways(page)
        context.close()
        if path.stat().st_size <= LARGEST_PICTURE:
            break
    return Shot(path.stat().st_size, complaints)


def _sideways(page: Page) -> list[str]:
    """At which widths a page is wider than the window."""
    found = []
    for width in (PHONE, *BETWEEN):
        page.set_viewport_size({"width": width, "height": WIDTHS[PHONE]})
        scrolled = page.evaluate("document.scrollingElement.scrollWidth")
        if scrolled > width:
            found.append(f"scrolls sideways at {width}: it is {scrolled} pixels wide")
    return found


def _context(browser: Browser, site: str, width: int, scale: float, session: str) -> BrowserContext:
    context = browser.new_context(
        viewport={"width": width, "height": WIDTHS[width]},
        device_scale_factor=scale,
        reduced_motion="reduce",
    )
    context.add_init_script(NOTE_VIOLATIONS)
    if session:
        context.add_cookies([{"name": "sessionid", "value": session, "url": site}])
    return context


def _open(page: Page, url: str, status: int) -> list[str]:
    """Go to a page; returns what is wrong with it."""
    complaints: list[str] = []

    def note_console(message: Any) -> None:
        is_own_status = status >= 400 and "Failed to load resource" in message.text
        if message.type == "error" and not is_own_status:
            complaints.append(f"console: {message.text}")

    page.on("console", note_console)
    page.on("pageerror", lambda error: complaints.append(f"script: {error}"))
    response = page.goto(url, wait_until="networkidle")
    if response is None or response.status != status:
        complaints.append(f"answered {response and response.status}")
    page.wait_for_timeout(300)  # charts draw themselves
    complaints += [f"policy: {each}" for each in page.evaluate("window.violations")]
    return [each for each in complaints if KNOWN_AND_BLOCKED not in each]


if __name__ == "__main__":
    sys.exit(main())
