"""A picture of the live page under load: docs/page.png is made by this.

    python -m scripts.tools.screenshot_page                               docs/page.png
    python -m scripts.tools.screenshot_page --out dark.png --theme dark --width 390 --scale 2

Starts a server with an emulated device, has many streams run on it, opens the page in the system's Chromium, sends a
prompt through it and takes the picture. The figures in it are that server's; the machine is this one, which the load
and the browser share with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
from playwright.sync_api import Browser, Page, sync_playwright

from scripts.lab.arguments import count, parser, positive
from scripts.lab.http import Client
from scripts.lab.paths import ROOT
from scripts.lab.server import launched

CONFIG = ROOT / "configs" / "emulated_910b.yaml"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WORDS = ("a", "ring", "has", "one", "writer", "and", "one", "reader", "nobody", "waits", "for", "a", "lock")


def main() -> None:
    options = parse()
    with (
        tempfile.TemporaryDirectory() as folder,
        launched(CONFIG, options.set, Path(folder) / "log") as server,
        load(server.port, options.streams, options.sampled),
        opened(f"{server.base_url}/", options) as page,
    ):
        page.wait_for_timeout(1000 * options.seconds)
        page.get_by_role("button", name="Send").click()
        page.get_by_text("the first after").wait_for()
        page.screenshot(path=options.out, full_page=True)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


def parse() -> argparse.Namespace:
    options = parser(__doc__)
    add = options.add_argument
    add("--out", type=Path, default=ROOT / "docs" / "page.png", metavar="FILE")
    add("--theme", choices=("light", "dark"), default="light")
    add("--width", type=count, default=1280, help="of the window, in CSS pixels")
    add("--height", type=count, default=900, help="at least; the picture has the whole page")
    add("--scale", type=positive, default=1, help="pixels of the picture per CSS pixel")
    add("--streams", type=count, default=24)
    add("--sampled", type=int, default=0, help="so many of them with temperature 0.8")
    add("--seconds", type=float, default=45, help="under load before the picture is taken")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the server's")
    return options.parse_args()


@contextlib.contextmanager
def opened(url: str, options: argparse.Namespace) -> Iterator[Page]:
    """The page in a browser of its own. Raises RuntimeError where there is no Chromium."""
    with chromium() as browser:
        page = browser.new_page(
            viewport={"width": options.width, "height": options.height},
            device_scale_factor=options.scale,
            color_scheme=options.theme,
            reduced_motion="reduce",  # what the browser computes here, the server can't
        )
        page.goto(url)
        yield page


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, with an empty profile. Raises RuntimeError where there is none."""
    path = chromium_path()
    if path is None:
        raise RuntimeError("Chromium is needed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS])
        try:
            yield browser
        finally:
            browser.close()


def chromium_path() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def load(port: int, streams: int, sampled: int = 0) -> Iterator[None]:
    """So many streams at any time, of answers of different lengths; some of them sampled."""
    stop = threading.Event()
    with ThreadPoolExecutor(streams) as pool:
        work = [pool.submit(_ask_again, port, i, 0.8 if i < sampled else 0.0, stop) for i in range(streams)]
        try:
            yield
        finally:
            stop.set()
        for done in work:
            done.result()


def _ask_again(port: int, number: int, temperature: float, stop: threading.Event) -> None:
    client = Client(f"http://127.0.0.1:{port}", keep_alive=False)
    for turn in itertools.count():
        prompt = " ".join(itertools.islice(itertools.cycle(WORDS), number, 2 * number + 20 * (turn % 4) + 8))
        length = 40 + (37 * number + 61 * turn) % 160
        body = {"prompt": prompt, "max_tokens": length, "temperature": temperature, "stream": True}
        request = client.request("POST", "/v1/completions", orjson.dumps(body))
        asyncio.run(client.send(request, lambda _: stop.is_set()))
        if stop.is_set():
            return


if __name__ == "__main__":
    main()
