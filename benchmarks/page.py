"""The page under load: searches of many clients, memory over thousands of requests, hostile requests, and map frames.

python benchmarks/page.py demo                       a folder with embed.toml and a store, as `embed demo` leaves it
python benchmarks/page.py demo --screenshots docs/images   also the pictures of the README; needs Debian's chromium

The server runs in a process of its own, as `embed serve` does; clients ask for the neighbours of random rows without a
pause, each on a connection that it keeps. Frames are those of 190,000 points in Chromium without a GPU.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from table import parse, show

CLIENTS = 50
HOSTILE = 1_000
STEADY = 5_000
FRAMES = 40
POINTS = 190_000
_K = 12


class Server:
    """`embed serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "embedstore", "serve", "--port", "0"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        text = ""
        while (found := re.search(r"open http://127\.0\.0\.1:(\d+)/\?token=(\S+)", text)) is None:
            line = self._process.stdout.readline()
            if not line:
                sys.exit(f"embed serve ended: {self._process.communicate()[1]}")
            text += line
        self.port, self.token = int(found[1]), found[2]
        self.cookie = ""

    def memory_mb(self) -> float:
        """Return what the process holds now, without its children."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def end(self) -> tuple[int, str]:
        """End it as Ctrl-C does, and return its exit code and what it said."""
        self._process.send_signal(signal.SIGINT)
        _, said = self._process.communicate(timeout=30)
        return self._process.returncode, said


class Connection:
    """A connection that is kept, and opened again where the other side has closed it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return status and body; status 0 where the connection was closed without an answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._server.port)
        reader, writer = self._streams
        try:
            writer.write(request)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else await reader.read()
            if b"connection: close" in head.lower():
                self.close()
            return int(head.split()[1]), body
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 0, b""

    def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def request(server: Server, method: str, address: str, body: bytes = b"", **headers: str) -> bytes:
    """Return a request as the page itself sends it, but for `headers`."""
    own = {
        "Host": f"127.0.0.1:{server.port}",
        "Cookie": server.cookie,
        "Origin": f"http://127.0.0.1:{server.port}",
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    } | {name.replace("_", "-"): text for name, text in headers.items()}
    lines = [f"{method} {address} HTTP/1.1", *(f"{name}: {text}" for name, text in own.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def search(server: Server, store: str, run: str, row: int) -> bytes:
    """Return the request for the neighbours of a row."""
    question = {"store": store, "run": run, "rows": [row], "k": _K}
    return request(server, "POST", "/search", json.dumps(question).encode())


async def enter(server: Server) -> tuple[str, str, int]:
    """Open the link; return the first store, its run, and its images."""
    connection = Connection(server)
    opened = (
        f"GET /?token={server.token} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(opened.encode())
    head = (await reader.read()).decode("latin-1")
    writer.close()
    server.cookie = re.search(r"set-cookie: ([^;]+)", head)[1]
    _, body = await connection.ask(request(server, "GET", "/contents"))
    store = json.loads(body)["stores"][0]
    connection.close()
    return store["name"], store["runs"][0]["name"], store["images"]


async def many_clients(
    server: Server, store: str, run: str, images: int, seconds: float
) -> dict[str, object]:
    """Let clients ask without a pause; return how long answers took, and how many were none."""
    took: list[float] = []
    errors = 0
    ends = time.perf_counter() + seconds

    async def client(seed: int) -> None:
        nonlocal errors
        rows, connection = random.Random(seed), Connection(server)
        while time.perf_counter() < ends:
            began = time.perf_counter()
            status, _ = await connection.ask(search(server, store, run, rows.randrange(images)))
            took.append(time.perf_counter() - began)
            errors += status != 200
        connection.close()

    await asyncio.gather(*(client(seed) for seed in range(CLIENTS)))
    return {
        "what": f"{CLIENTS} clients, {seconds:.0f} s",
        "requests": len(took),
        "a second": f"{len(took) / seconds:.0f}",
        "median ms": f"{np.median(took) * 1e3:.0f}",
        "p95 ms": f"{np.percentile(took, 95) * 1e3:.0f}",
        "errors": errors,
    }


async def steady(server: Server, store: str, run: str, images: int) -> dict[str, object]:
    """Ask thousands of times, pictures among them; return what memory did, above all when caches were full."""
    connection, held = Connection(server), []
    for number in range(STEADY):
        row = number * 7 % images
        what = (
            search(server, store, run, row)
            if number % 2
            else request(server, "GET", f"/stores/{store}/rows/{row}/small")
        )
        status, _ = await connection.ask(what)
        assert status == 200, status
        if number % (STEADY // 5) == 0 or number == STEADY - 1:
            held.append(server.memory_mb())
    connection.close()
    return {
        "what": f"{STEADY:,} requests, one after the other",
        "MB at each fifth": " ".join(f"{megabytes:.0f}" for megabytes in held),
        "growth after the first fifth": f"{held[-1] - held[1]:+.1f} MB",
    }


async def hostile(server: Server, store: str, run: str) -> dict[str, object]:
    """Send what must not be answered, in turn; count what was answered as if it were a question of the page."""
    question = json.dumps({"store": store, "rows": [0]}).encode()
    form = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    multipart = "multipart/form-data; boundary=b"
    ways = [
        request(server, "POST", "/search", question, Host="evil.example"),
        request(server, "POST", "/search", question, Host=f"evil.example:{server.port}"),
        request(server, "POST", "/search", question, Cookie=""),
        request(server, "POST", "/search", question, Cookie=f"{server.cookie}x"),
        request(server, "POST", "/search", question, Origin="http://evil.example"),
        request(server, "POST", "/search", question, Sec_Fetch_Site="cross-site"),
        request(server, "GET", "/static/../guard.py"),
        request(server, "GET", "/static/%2e%2e%2fguard.py"),
        request(server, "GET", f"/stores/{store}/rows/../../../etc/passwd"),
        request(server, "GET", f"/stores/{store}/rows/4294967296/small"),
        request(server, "GET", "/?token=guess"),
        request(server, "PUT", "/search", question),
        request(server, "POST", "/search", b"[" * 50_000),
        request(server, "POST", "/search", b"{}", Content_Length="99999999"),
        request(server, "POST", "/send", form + b"x", Content_Type=multipart),
        request(server, "POST", "/send", b"no form", Content_Type=multipart),
        request(server, "POST", "/send", b"", Content_Type=multipart, Content_Length="99999999999"),
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 60_000 + b"\r\n\r\n",
        b"GET " + b"/a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    ]
    served = unanswered = 0

    async def one(number: int) -> None:
        nonlocal served, unanswered
        connection = Connection(server)
        try:
            status, _ = await asyncio.wait_for(connection.ask(ways[number % len(ways)]), 30)
        except TimeoutError:
            status = 0
        served += 200 <= status < 400
        unanswered += status == 0
        connection.close()

    for start in range(0, HOSTILE, CLIENTS):
        await asyncio.gather(*(one(number) for number in range(start, min(start + CLIENTS, HOSTILE))))
    status, _ = await Connection(server).ask(search(server, store, run, 0))
    return {
        "what": f"{HOSTILE:,} hostile requests of {len(ways)} kinds",
        "served": served,
        "dropped": unanswered,
        "afterwards": "answers" if status == 200 else f"status {status}",
    }


def frames(server: Server, folder: Path, screenshots: Path | None) -> dict[str, object]:
    """Draw a map of many points in a browser; return how long a frame takes while it is moved."""
    rows = np.arange(POINTS, dtype="<u4")
    clusters = np.random.default_rng(0).normal(0, 0.6, (12, 2))
    spread = np.random.default_rng(1).normal(0, 0.09, (POINTS, 2))
    places = np.clip(clusters[rows % 12] + spread, -1, 1).astype("<f4")
    with sync_playwright() as driver:
        # A container's root may not sandbox; the page is our own.
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        page.goto(f"http://127.0.0.1:{server.port}/?token={server.token}")
        page.wait_for_selector("#found .case")
        if screenshots is not None:
            _photograph(page, folder, screenshots)
        # The server's own answers are replaced by those of a large store: what is timed is the browser.
        page.route("**/map/points/*", lambda route: route.fulfill(body=rows.tobytes() + places.tobytes()))
        page.route(
            "**/map/colours/*",
            lambda route: route.fulfill(body=(rows % 2).astype(np.uint8).tobytes()),
        )
        page.click("#to-map")
        page.wait_for_selector("#legend li")
        page.wait_for_timeout(500)
        box = page.locator("#over").bounding_box()
        page.mouse.move(box["x"] + 300, box["y"] + 200)
        took = []
        for number in range(FRAMES):
            page.mouse.wheel(0, -40 if number % 2 else 40)
            page.wait_for_timeout(40)
            took.append(float(page.get_attribute("#stage", "data-frame-ms")))
        size = page.evaluate(
            "[document.getElementById('points').width, document.getElementById('points').height]"
        )
        browser.close()
    return {
        "what": f"a frame of {POINTS:,} points, {size[0]} x {size[1]} px",
        "median ms": f"{np.median(took):.1f}",
        "p95 ms": f"{np.percentile(took, 95):.1f}",
        "frames a second, at most": f"{1000 / np.median(took):.0f}",
    }


def _photograph(page: Page, project: Path, folder: Path) -> None:
    """Write the pictures of the README: of the phantoms of the folder, with few colours, so that they are small."""
    picture = min(project.glob("MURA-v1.1/valid/XR_ELBOW/*/*/image1.png"))
    page.set_input_files("#file", picture)
    page.wait_for_selector("#answer .target")
    page.wait_for_timeout(1500)
    _small(page.screenshot(), folder / "page-cases.png")
    page.click("#to-map")
    page.wait_for_selector("#legend li")
    page.select_option("#colour", label="anatomy")
    page.wait_for_timeout(800)
    page.mouse.move(*_middle_of(page))
    page.wait_for_timeout(800)
    _small(page.screenshot(), folder / "page-map.png")


def _middle_of(page: Page) -> tuple[float, float]:
    """Return where a point of the map lies, somewhere around its middle."""
    box = page.locator("#over").bounding_box()
    for step in range(60):
        place = box["x"] + box["width"] * (0.3 + step / 150), box["y"] + box["height"] * (0.35 + step / 300)
        page.mouse.move(*place)
        page.wait_for_timeout(30)
        if page.is_visible("#tip"):
            return place
    return box["x"], box["y"]


def _small(screenshot: bytes, path: Path) -> None:
    """Write a screenshot with 96 colours."""
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    picture.quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with embed.toml, a store and a run")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--screenshots", type=Path, help="write the pictures of the README here")
    arguments = parse(parser)
    server = Server(arguments.folder)

    async def ask() -> list[dict[str, object]]:
        store, run, images = await enter(server)
        return [
            await many_clients(server, store, run, images, arguments.seconds),
            await steady(server, store, run, images),
            await hostile(server, store, run),
        ]

    tables = asyncio.run(ask())
    code, said = server.end()
    if shutil.which("chromium") is not None:
        server = Server(arguments.folder)
        tables.append(frames(server, arguments.folder, arguments.screenshots))
        server.end()
    rows = [
        {"what": table.pop("what"), "measured": ", ".join(f"{name} {cell}" for name, cell in table.items())}
        for table in tables
    ]
    show("The page", rows, json_path=arguments.json)
    print(f"ended with exit code {code}; it said: {said.strip() or 'nothing'}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
