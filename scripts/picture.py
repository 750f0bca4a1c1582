"""Makes docs/page.png: ``uv run --with pillow python scripts/picture.py FOLDER``.

Imports a MovieLens folder into a temporary database, serves it on a free port, and takes a
screenshot of the most rated movies in Chromium. Pillow reduces the colours: 170 kB instead of 380.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from PIL import Image  # type: ignore[import-not-found] # installed by --with, for this script only
from playwright.sync_api import sync_playwright

PROJECT = Path(__file__).resolve().parent.parent
PICTURE = PROJECT / "docs" / "page.png"
VIEW = "/"
WIDTH, HEIGHT = 1280, 800
COLOURS = 256
MAX_BYTES = 200_000
START_SECONDS = 30.0


def take(folder: Path) -> None:
    """Write docs/page.png, the first view of the page with a MovieLens folder imported."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("Install Chromium first: apt-get install chromium")
    with tempfile.TemporaryDirectory() as temporary:
        settings = {"MOVIE_DATABASE_URL": f"sqlite:///{temporary}/movies.db"}
        database = [sys.executable, str(PROJECT / "scripts" / "db.py")]
        for command in (["migrate"], ["import-movielens", str(folder.resolve())]):
            subprocess.run([*database, *command], env=os.environ | settings, check=True)  # noqa: S603 - our own commands
        with _server(os.environ | settings) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium)
            page = browser.new_page(
                base_url=url, viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light"
            )
            page.goto(VIEW)
            page.locator(".cards li").first.wait_for()
            page.screenshot(path=PICTURE)
            browser.close()
    with Image.open(PICTURE) as picture:
        colours = picture.convert("RGB")
    palette = colours.quantize(COLOURS, method=Image.Quantize.FASTOCTREE)
    # Dithered: the posters' gradients would show bands.
    colours.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(
        PICTURE, optimize=True
    )
    size = PICTURE.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{PICTURE} has {size} bytes, more than {MAX_BYTES}")
    typer.echo(f"Wrote {PICTURE}, {size} bytes")


@contextmanager
def _server(environment: dict[str, str]) -> Iterator[str]:
    """Run the service on a free port and yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)]
    process = subprocess.Popen(command, cwd=PROJECT, env=environment)  # noqa: S603 - our own server
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("The server did not start")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5):  # noqa: S310 - our own server
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


if __name__ == "__main__":
    typer.run(take)
