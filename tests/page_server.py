"""A running page on a real socket, and a client that speaks to it byte by byte."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cli.page.catalog import Catalog, find_runs, find_stores
from cli.page.guard import Door
from cli.page.routes import Page, new_page
from cli.page.server import bind, closing, new_server
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.phantoms.mura import write_phantom_mura
from tests.image_files import dataset, dicom_bytes

LIMIT_BYTES = 4_000_000


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """A browser's manners, which each request may break."""

    port: int
    cookie: str = ""
    host: str = "127.0.0.1"

    @property
    def origin(self) -> str:
        return f"http://{self.host}:{self.port}"

    def ask(
        self,
        method: str,
        address: str,
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        given: dict[str, str | None] = {"Host": f"{self.host}:{self.port}", "Sec-Fetch-Site": "same-origin"}
        if self.cookie:
            given["Cookie"] = self.cookie
        if method == "POST":
            given["Origin"] = self.origin
        given |= headers or {}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.putrequest(method, address, skip_host=True, skip_accept_encoding=True)
            for name, text in given.items():
                if text is not None:
                    connection.putheader(name, text)
            if body is not None and "Content-Length" not in given:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(
                response.status, {name.lower(): text for name, text in response.getheaders()}, response.read()
            )
        finally:
            connection.close()

    def get(self, address: str, **headers: str | None) -> Answer:
        return self.ask(
            "GET", address, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )

    def post(self, address: str, question: Any) -> Answer:
        return self.ask("POST", address, json.dumps(question).encode(), {"Content-Type": "application/json"})

    def send(self, files: Sequence[bytes], **options: Any) -> Answer:
        body, kind = form(files, options)
        return self.ask("POST", "/send", body, {"Content-Type": kind})

    def raw(self, content: bytes, *, timeout: float = 5.0) -> bytes:
        """Send bytes as they are, and return what comes until the other side closes or nothing comes for a while."""
        with socket.create_connection((self.host, self.port), timeout=timeout) as connection:
            connection.sendall(content)
            received = b""
            try:
                while piece := connection.recv(1 << 16):
                    received += piece
            except TimeoutError:
                return received + b"(still open)"
            except ConnectionResetError:
                pass
            return received


@dataclass
class Running:
    """A page and the links that it has printed."""

    page: Page
    door: Door
    port: int
    host: str
    links: list[str] = field(default_factory=list)

    def enter(self) -> Client:
        """Open the current link, as a new browser does."""
        client = Client(self.port, host=self.host)
        answer = client.get(f"/?token={self.door.token}", Sec_Fetch_Site="none", Sec_Fetch_Mode="navigate")
        assert answer.status == 200
        client.cookie = answer.headers["set-cookie"].partition(";")[0]
        return client


def form(files: Sequence[bytes], options: Mapping[str, Any] | None = None) -> tuple[bytes, str]:
    """Return a multipart form and its content type."""
    border = "----a-border-that-no-file-holds"
    head = f'--{border}\r\nContent-Disposition: form-data; name="'
    parts = [f'{head}options"\r\n\r\n{json.dumps(options)}\r\n'.encode()] if options is not None else []
    parts += [
        f'{head}file"; filename="../../etc/Secret^Name.png"\r\n\r\n'.encode() + file + b"\r\n"
        for file in files
    ]
    return b"".join(parts) + f"--{border}--\r\n".encode(), f"multipart/form-data; boundary={border}"


def make_world(folder: Path) -> Path:
    """Make a project: phantoms, their store, and a run on it."""
    from cli.jobs.probe_store import ProbeJob, probe_store
    from heads.protocol.options import ProbeOptions

    write_phantom_mura(folder, patients=40)
    options = ExtractOptions(workers=1)
    extract("mura", folder / "mura.store", "hog", root=folder / "MURA-v1.1", options=options)
    probe_store(
        ProbeJob(
            stores=[folder / "mura.store"],
            options=ProbeOptions(head="knn", folds=2, draws=20),
            out=folder / "runs" / "abnormal-knn",
        )
    )
    (folder / "embed.toml").write_text('dataset = "mura"\nroot = "MURA-v1.1"\nstore = "mura.store"\n')
    return folder


def catalog_of(folder: Path) -> Catalog:
    return Catalog(stores=find_stores([], folder), runs=find_runs([folder / "runs"]))


@contextmanager
def serving(
    catalog: Catalog, *, names: Sequence[str] = (), limit_bytes: int = LIMIT_BYTES, host: str = "127.0.0.1"
) -> Iterator[Running]:
    """Serve a catalog on a free port until the block ends."""
    with bind(host, 0) as listening:
        port = listening.getsockname()[1]
        page = new_page(catalog, limit_bytes=limit_bytes)
        links: list[str] = []
        door = Door(port, links.append)
        server = new_server(page, door, names=names)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            with closing(page):
                yield Running(page, door, port, host, links)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def grey_dicom(*, seed: int = 0) -> bytes:
    """Return a DICOM file of 12-bit grey values with a window of its own."""
    rows, columns = np.mgrid[0:96, 0:128]
    noise = np.random.default_rng(seed).integers(0, 40, (96, 128))
    pixels = (1000 + 12 * rows + 8 * columns + noise).astype(np.uint16)
    return dicom_bytes(
        dataset(pixels, bits_stored=12, WindowCenter=1500, WindowWidth=1001, PatientID="SECRET4711")
    )
