"""Security of the page, over a real socket: who may ask, from where, how much and how slowly."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import threading
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cli.main import run
from cli.page import guard, server
from cli.page.answering import Desk
from cli.page.routes import PLACES, SENDING, build_app
from cli.page.workshop import Workshop
from tests.page_server import LIMIT_BYTES, Client, catalog_of, form, grey_dicom, serving

ROW = "/stores/mura/rows/0/small"
QUESTION = {"store": "mura", "rows": [0]}


def addresses(app):
    """Every address of the application with something in each place."""
    found = []
    for route in app.routes:
        path = re.sub(r"{\w+:int}", "0", route.path)
        path = path.replace("{store}", "mura").replace("{run}", "abnormal-knn").replace("{way}", "pca")
        path = re.sub(r"{\w+}", "x", path)
        found.append(("POST" if route.methods == {"POST"} else "GET", path))
    return found


def post_head(client, address):
    """The first lines of a request that does something, as the page itself sends it."""
    return (
        f"POST {address} HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\n"
        f"Origin: {client.origin}\r\nCookie: {client.cookie}\r\n"
    )


def test_a_link_opens_once_and_becomes_a_strict_cookie(running):
    client, token = Client(running.port), running.door.token
    opened = client.get(f"/?token={token}", Sec_Fetch_Site="none")
    assert opened.status == 200
    cookie = opened.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert token not in opened.headers["set-cookie"]
    assert client.get(f"/?token={token}", Sec_Fetch_Site="none").status == 401
    client.cookie = opened.headers["set-cookie"].partition(";")[0]
    assert client.get("/").status == 200
    # The next link was printed, for another browser.
    assert running.links[-1] == running.door.token != token


def test_a_link_is_not_used_up_by_a_prefetch_or_by_a_guess(running):
    client, token = Client(running.port), running.door.token
    assert client.get(f"/?token={token}", Sec_Purpose="prefetch").status == 403
    assert client.get("/?token=").status == 401
    assert client.get(f"/?token={token[:-1]}").status == 401
    assert client.get("/?token=%C3%A4").status == 401
    # A person who follows a link reads why, and no JSON.
    said = client.get("/?token=", Accept="text/html,*/*;q=0.8")
    assert (said.status, said.headers["content-type"]) == (401, "text/plain; charset=utf-8")
    assert said.body.startswith(b"This link was used already")
    assert running.door.token == token


def test_nothing_is_answered_without_a_session(running):
    visitor = Client(running.port)
    for cookie in ("", f"{running.door.cookie}=guess", "a=b; $$$", f"{running.door.cookie}="):
        visitor.cookie = cookie
        for method, address in addresses(build_app(running.page)):
            answer = visitor.ask(method, address, b"{}" if method == "POST" else None)
            assert answer.status == 401, (method, address)
            assert answer.json == {"error": "open the link that `embed serve` printed; each opens once"}


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.nip.io",
        "localhost.evil.example",
        "169.254.169.254",
        "0.0.0.0",
        "[::1]",
        "127.0.0.2",
        "",
    ],
)
def test_a_name_that_points_here_from_elsewhere_is_refused(client, host):
    """DNS rebinding: the browser believes that the page is of the attacker's own site."""
    assert client.get("/contents", Host=f"{host}:{client.port}").status == 421
    assert client.get("/contents", Host=host or None).status in (400, 421)


def test_host_must_be_said_once_and_with_the_port(client):
    line = f"GET /contents HTTP/1.1\r\nCookie: {client.cookie}\r\nConnection: close\r\n"
    twice = f"{line}Host: 127.0.0.1:{client.port}\r\nHost: evil.example\r\n\r\n"
    assert re.match(rb"HTTP/1.1 4(00|21) ", client.raw(twice.encode()))
    assert client.get("/contents", Host="127.0.0.1").status == 421
    assert client.get("/contents", Host=f"127.0.0.1:{client.port + 1}").status == 421
    for name in ("127.0.0.1", "localhost", "LOCALHOST"):
        assert client.get("/contents", Host=f"{name}:{client.port}").status == 200


def test_another_address_and_further_names_are_known_when_they_are_given(project):
    """What --host 192.168.1.7 --name hospital.example does, on an address that every Linux has."""
    with serving(catalog_of(project), names=["hospital.example"], host="127.0.0.2") as running:
        client = running.enter()
        for host, status in (
            ("127.0.0.2", 200),
            ("hospital.example", 200),
            ("127.0.0.1", 421),
            ("other.example", 421),
        ):
            assert client.get("/contents", Host=f"{host}:{running.port}").status == status
        assert Client(running.port, host="127.0.0.2").get("/contents").status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": None},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "https://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_what_does_something_must_come_from_the_page_itself(client, headers):
    body = json.dumps(QUESTION).encode()
    assert client.ask("POST", "/search", body, headers).status == 403
    assert client.ask("POST", "/send", *_form(headers)).status == 403
    assert client.ask("POST", "/search", body).status == 200


def _form(headers):
    body, kind = form([b"x"], {"store": "mura"})
    return body, {**headers, "Content-Type": kind}


def test_another_sites_page_can_neither_embed_nor_read(client):
    assert client.get(ROW, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").status == 403
    assert client.get("/contents", Sec_Fetch_Site="same-site", Sec_Fetch_Mode="cors").status == 403
    # A link to the page may be followed; the cookie is strict, so that it arrives without one.
    assert client.get("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        assert client.ask(method, "/contents").status == 405


def test_every_answer_says_what_a_browser_must_not_do(running, client):
    answers = [
        client.get(address) for address in ("/", "/contents", "/static/page.js", ROW, "/nothing", "/search")
    ]
    answers += [
        Client(running.port).get("/"),
        client.get("/contents", Host="evil.example"),
        client.post("/search", []),
    ]
    assert {answer.status for answer in answers} == {200, 400, 401, 404, 405, 421}
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
    report = client.get("/runs/abnormal-knn/report")
    assert report.status == 200
    assert report.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert "script-src" not in report.headers["content-security-policy"]


@pytest.mark.parametrize(
    "address",
    [
        "/static/../guard.py",
        "/static/%2e%2e/guard.py",
        "/static/..%2f..%2f..%2fetc/passwd",
        "/static//etc/passwd",
        "/stores/../rows/0/small",
        "/stores/mura/rows/../../../etc/passwd",
        "/stores/%2e%2e%2fmura/rows/0/small",
        "/stores/%2Fetc/rows/0/small",
        "/stores/mura/rows/-1/small",
        "/stores/mura/rows/0.5/small",
        "/stores/mura/rows/99999999999999999999/small",
        "/stores/mura/rows/0/original",
        "/stores/mura/rows/train/XR_ELBOW/image1.png/small",
        "/runs/..%2f..%2fembed.toml/report",
        "/runs/%2Fetc%2Fpasswd/report",
        "/sent/../../0/small",
        "/sent/x/0/small",
        "/stores/mura/map/points/..%2f..%2fx",
        "/etc/passwd",
        "/%00",
    ],
)
def test_images_are_named_by_rows_and_never_by_paths(client, address):
    answer = client.get(address)
    assert answer.status in (400, 404), answer.status
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"error"}
    assert "passwd" not in answer.json["error"]


def test_questions_name_no_paths_either(client, project):
    for store in (str(project / "mura.store"), "../mura.store", "/etc", None, 5, ["mura"]):
        assert client.post("/search", {"store": store, "rows": [0]}).status == 400
    for rows in (["/etc/passwd"], [-1], [10**9], [True], [0.0], "0", {"a": 1}):
        assert client.post("/search", {"store": "mura", "rows": rows}).status == 400, rows
    assert client.post("/search", {"store": "mura", "images": ["/etc/passwd"]}).status == 400
    assert client.send([b"x"], store="mura", run="../runs/abnormal-knn").status == 400


def test_pictures_are_encoded_anew(client, project, picture):
    """Text, profiles and thumbnails that a file carries do not travel on."""
    shown = client.get(ROW)
    assert shown.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(shown.body)).size == (192, 192)
    note = PngInfo()
    note.add_text("patient", "Secret^Name")
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture)).save(buffer, "PNG", pnginfo=note)
    sent = client.send([buffer.getvalue()], store="mura").json
    small = client.get(f"/sent/{sent['id']}/0/small").body
    assert b"Secret" not in small
    assert Image.open(io.BytesIO(small)).format == "JPEG"
    assert not Image.open(io.BytesIO(small)).getexif()


def test_what_is_too_large_is_refused_before_it_has_come(client):
    """By the length that is stated, and where none is stated as soon as there is too much."""
    head = post_head(client, "/send")
    body, kind = form([b"a" * LIMIT_BYTES + b"b" * 2_000_000], {"store": "mura"})
    stated = f"{head}Content-Type: {kind}\r\nContent-Length: 99999999999\r\n\r\n"
    assert client.raw(stated.encode()).startswith(b"HTTP/1.1 413 ")
    # Half a million bytes more than are allowed, and no end: the answer comes without one.
    chunk = body[: LIMIT_BYTES + 500_000]
    open_ended = (
        f"{head}Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n{len(chunk):x}\r\n".encode() + chunk
    )
    assert client.raw(open_ended).startswith(b"HTTP/1.1 413 ")
    question = f"{post_head(client, '/search')}Content-Length: 2200000\r\n\r\n"
    assert client.raw(question.encode()).startswith(b"HTTP/1.1 413 ")


def test_an_archive_is_measured_by_what_comes_out_of_it(client, picture):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(8 * LIMIT_BYTES))
    assert len(buffer.getvalue()) < LIMIT_BYTES / 50
    assert client.send([buffer.getvalue()], store="mura").status == 413
    named = io.BytesIO()
    with zipfile.ZipFile(named, "w") as archive:
        archive.writestr("../../outside.png", picture)
        archive.writestr("__MACOSX/._outside.png", b"x")
    answer = client.send([named.getvalue()], store="mura", run="abnormal-knn")
    assert answer.status == 200, answer.body
    assert answer.json["images"] == 1


def test_what_is_sent_lies_in_memory_and_is_gone_afterwards(
    running, client, project, picture, monkeypatch, tmp_path
):
    """While it is answered there are only links, to memory without a name; then there is nothing."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    seen = []
    answer = Desk.answer

    def watched(self, files, options):
        seen.extend((path.is_symlink(), os.readlink(path), path.read_bytes()[:4]) for path in files.paths)
        seen.append([str(path) for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()])
        return answer(self, files, options)

    monkeypatch.setattr(Desk, "answer", watched)
    held = len(os.listdir("/proc/self/fd"))
    assert client.send([picture, picture], store="mura").status == 200
    links, files = seen[:2], seen[2]
    assert [(is_link, head) for is_link, _, head in links] == [(True, b"\x89PNG")] * 2
    assert all(re.fullmatch(rf"/proc/{os.getpid()}/fd/\d+", target) for _, target, _ in links)
    assert files == []
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) <= held + 3  # the decoding process that goes on


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
        grey_dicom()[:300],
        b"PK\x03\x04" + b"\xff" * 200,
    ],
    ids=["empty", "text", "broken png", "cut dicom", "broken zip"],
)
def test_files_that_are_no_images_are_refused_with_a_reason(client, content):
    for options in ({"store": "mura"}, {"store": "mura", "run": "abnormal-knn"}):
        answer = client.send([content], **options)
        assert answer.status == 400
        assert "embedstore-page-" not in answer.json["error"]
        assert "etc" not in answer.json["error"]
    assert client.post("/search", QUESTION).status == 200


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"--b\r\nno header\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx', "multipart/form-data; boundary=b"),
        (
            b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (b"--b\r\n" + b"A: b\r\n" * 400 + b"\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\n" + b"A" * 60_000 + b": b\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"--b--\r\n", "multipart/form-data; boundary=b"),
        (b"x", "multipart/form-data; boundary=" + "b" * 500),
        (b"x", "multipart/form-data"),
        (b"{}", "application/json"),
        (
            b'--b\r\nContent-Disposition: form-data; name="options"\r\n\r\n[[[\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
    ],
)
def test_a_malformed_form_is_refused(client, body, kind):
    assert client.ask("POST", "/send", body, {"Content-Type": kind}).status == 400


def test_questions_that_are_no_questions_are_refused(client):
    for body in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null", b'{"store": "mura", "k": 1e9}'):
        assert client.ask("POST", "/search", body).status == 400
    for question in (
        {"k": 0},
        {"k": "3"},
        {"where": "a"},
        {"where": [3]},
        {"where": ["~~~"]},
        {"equals": []},
        {"sent": "x"},
    ):
        assert client.post("/search", {**QUESTION, **question}).status == 400, question


def test_a_client_that_stalls_is_dropped(client, monkeypatch):
    monkeypatch.setattr(server, "HEADERS_S", 0.3)
    monkeypatch.setattr(guard, "_PIECE_S", 0.3)
    began = time.monotonic()
    assert client.raw(b"GET / HTTP/1.1\r\nHost: 127.0.0.1") == b""
    head = post_head(client, "/search")
    assert client.raw(f"{head}Content-Length: 50\r\n\r\n{{".encode()).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 4


def test_a_client_that_sends_drop_by_drop_is_dropped(client, monkeypatch):
    monkeypatch.setattr(server, "HEADERS_S", 0.4)
    with socket.create_connection((client.host, client.port), timeout=5) as connection:
        began = time.monotonic()
        for letter in b"GET / HTTP/1.1\r\n" + b"A" * 400:
            try:
                connection.sendall(bytes([letter]))
            except OSError:
                break
            time.sleep(0.02)
        assert 0.3 < time.monotonic() - began < 3


def test_a_client_that_does_not_read_is_dropped(running, client, monkeypatch):
    monkeypatch.setattr(server, "STALLED_S", 0.3)
    head = f"Host: 127.0.0.1:{client.port}\r\nCookie: {client.cookie}\r\n\r\n"
    request = f"GET /static/map.js HTTP/1.1\r\n{head}".encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((client.host, client.port))
        connection.settimeout(0.5)
        began, dropped = time.monotonic(), False
        while not dropped and time.monotonic() - began < 5:
            try:
                connection.sendall(request * 50)
            except TimeoutError:
                continue
            except OSError:
                dropped = True
        assert dropped


def test_headers_that_are_too_long_are_refused(client):
    head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nX: "
    assert re.match(rb"HTTP/1.1 4\d\d ", client.raw(head.encode() + b"a" * 100_000 + b"\r\n\r\n"))
    assert client.get("/contents").status == 200


def test_too_much_at_once_is_sent_away(running, client, picture, monkeypatch):
    """One upload is answered, some wait, and the next is told to come again."""
    hold, inside = threading.Event(), threading.Semaphore(0)
    answer = Desk.answer

    def held(self, files, options):
        inside.release()
        hold.wait(10)
        return answer(self, files, options)

    monkeypatch.setattr(Desk, "answer", held)
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(client.send([picture], store="mura").status))
        for _ in range(sum(PLACES[SENDING]))
    ]
    for thread in threads:
        thread.start()
    inside.acquire(timeout=5)
    while running.page.workshop._held[SENDING] < len(threads):
        time.sleep(0.01)
    away = client.send([picture], store="mura")
    assert away.status == 503
    assert away.headers["retry-after"] == "2"
    # Searches have a queue of their own.
    assert client.post("/search", QUESTION).status == 200
    hold.set()
    for thread in threads:
        thread.join()
    assert statuses == [200] * len(threads)


def test_more_requests_than_are_answered_at_once_are_sent_away(client, monkeypatch):
    monkeypatch.setattr(guard, "MOST_REQUESTS", 0)
    assert client.get("/contents").status == 503


def test_nothing_about_a_patient_is_logged_or_stands_in_an_address(running, client, project, picture, capfd):
    patient = "patient00001"
    found = client.post("/search", {**QUESTION, "where": [f"patient_id!={patient}"]})
    assert found.status == 200
    client.send([grey_dicom()], store="mura", run="abnormal-knn")
    client.get(f"/stores/mura/rows/0/small?patient={patient}")
    client.raw(f"GET /{patient} HTTP/9.9\r\n\r\n".encode())
    client.ask("POST", "/send", b"--b\r\npatient00001", {"Content-Type": "multipart/form-data; boundary=b"})
    out, err = capfd.readouterr()
    assert out + err == ""
    for _, address in addresses(build_app(running.page)):
        assert "patient" not in address


def test_a_defect_is_told_without_what_it_was_about(running, client, monkeypatch, capfd):
    def defect(*_):
        raise ValueError("patient00007 /home/somebody/secret.png")

    monkeypatch.setattr("cli.page.routes.find_cases", defect)
    answer = client.post("/search", QUESTION)
    assert answer.status == 500
    assert answer.json == {"error": "the page has a defect: ValueError"}
    out, err, waited = "", "", time.monotonic()
    while "defect" not in err and time.monotonic() - waited < 5:  # it is told after the answer
        more = capfd.readouterr()
        out, err = out + more.out, err + more.err
    assert "patient00007" not in out + err + answer.body.decode()
    assert err.startswith("defect: ValueError in defect (")
    monkeypatch.undo()
    assert client.post("/search", QUESTION).status == 200


def test_a_workshop_gives_places_back_whatever_happens():
    import asyncio

    async def use():
        shop = Workshop({"a": (1, 0)})
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await shop.run("a", lambda: 1 // 0)
        assert await shop.run("a", lambda: 5) == 5
        shop.close()

    asyncio.run(use())


def test_a_port_in_use_gives_one_clear_line(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "--port", str(port)]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err.startswith(f"Error: --port {port}: something on this machine listens there already")
    assert "http" not in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--name", "station"], 2, "--name says how other machines ask for this one; it needs --host"),
        (["--runs", "gone"], 1, "--runs: gone does not exist"),
    ],
)
def test_options_that_would_do_nothing_are_refused(project, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(project)
    assert run(["serve", "--port", "0", *arguments]) == code
    assert message in capsys.readouterr().err


def test_it_listens_on_the_loopback_and_ends_cleanly_when_asked(project, monkeypatch, capsys):
    """The whole command: it prints a link that works, and SIGTERM ends it with nothing left behind."""
    import signal

    monkeypatch.chdir(project)
    monkeypatch.setattr(guard, "_PIECE_S", 1.0)
    answers = []

    def use():
        text = ""
        while "open http://" not in text:
            time.sleep(0.02)
            text += capsys.readouterr().out
        port, token = re.search(r"open http://127\.0\.0\.1:(\d+)/\?token=(\S+)", text).groups()
        client = Client(int(port))
        opened = client.get(f"/?token={token}", Sec_Fetch_Site="none")
        client.cookie = opened.headers["set-cookie"].partition(";")[0]
        answers.append(client.get(ROW).status)
        listening = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()]
        answers.append(
            [own for own, _, state in listening if own.endswith(f":{int(port):04X}") and state == "0A"]
        )
        os.kill(os.getpid(), signal.SIGTERM)

    threads = set(threading.enumerate())
    user = threading.Thread(target=use)
    user.start()
    assert run(["serve", "--port", "0"]) == 130
    user.join()
    assert answers[0] == 200
    assert [address.partition(":")[0] for address in answers[1]] == ["0100007F"]  # 127.0.0.1, and no other
    left = [
        thread.name
        for thread in set(threading.enumerate()) - threads
        if thread.name.startswith(("page", "decoder"))
    ]
    assert left == []


def test_decoding_processes_do_not_outlive_the_page(project):
    with serving(catalog_of(project)) as running:
        assert running.enter().get(ROW).status == 200
        (pid,) = running.page.pictures._pool.process_ids()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
