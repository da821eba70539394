"""A guest that is not there, hangs, drips or sends what it should not: an error within its time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mmturn.envs.gui.osworld import client
from mmturn.envs.gui.osworld.client import Address, Guest, HTTPStatus, read_address
from mmturn.errors import ConfigError, EnvError, NotRunnable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def serve() -> Iterator[Callable[..., Guest]]:
    """``serve(talk)``: a guest whose server calls ``talk(connection)`` for each request."""
    sockets: list[socket.socket] = []

    def start(talk: Callable[[socket.socket], None], timeout_s: float = 0.5) -> Guest:
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                connection.recv(100_000)
                try:
                    talk(connection)
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        return Guest(Address("127.0.0.1", listener.getsockname()[1]), timeout_s)

    yield start
    for listener in sockets:
        listener.shutdown(socket.SHUT_RDWR)  # or its thread would accept for the next socket of that number
        listener.close()


def sends(content: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(OK % len(content) + content)


def drips(connection: socket.socket) -> None:
    connection.sendall(OK % 1000)
    for _ in range(40):
        connection.sendall(b"x")
        time.sleep(0.1)


def test_a_guest_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    guest = Guest(Address("127.0.0.1", port), 1.0)
    with pytest.raises(EnvError, match="does not answer"):
        guest.screenshot()
    started = time.monotonic()
    with pytest.raises(EnvError, match=rf"127.0.0.1:{port} showed no screen within 0.3 s: .*does not answer"):
        guest.wait_ready(0.3)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("talk", [lambda connection: time.sleep(4), drips], ids=["hangs", "drips"])
def test_a_guest_that_takes_too_long(serve, talk):
    started = time.monotonic()
    with pytest.raises(EnvError, match="does not answer|took longer"):
        serve(talk).execute("x")
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("content", "ask", "words"),
    [
        (b"hello", lambda guest: guest.screenshot(), "no PNG"),
        (b"hello", lambda guest: guest.execute("x"), "no JSON"),
        (b"[1]", lambda guest: guest.execute("x"), "in place of an output"),
        (b'{"AT": 3}', lambda guest: guest.accessibility(), "/accessibility: the guest sent"),
        (b"{", lambda guest: guest.size("/screen_size"), "no JSON"),
    ],
)
def test_a_guest_that_sends_what_it_should_not(serve, content, ask, words):
    with pytest.raises(EnvError, match=words):
        ask(serve(sends(content)))


def test_an_answer_without_end_is_refused(serve, monkeypatch):
    monkeypatch.setattr(client, "MAX_BYTES", 1000)
    with pytest.raises(EnvError, match="more than 1000 bytes"):
        serve(sends(b"x" * 2000)).file("/f")


@pytest.mark.parametrize(
    ("status", "error"), [(404, HTTPStatus), (500, HTTPStatus), (501, NotRunnable), (401, HTTPStatus)]
)
def test_an_answer_that_is_an_error_says_which(serve, status, error):
    answer = b"HTTP/1.1 %d No\r\nContent-Length: 3\r\n\r\nwhy" % status
    guest = serve(lambda connection: connection.sendall(answer))
    with pytest.raises(error, match=f"why|{status}"):
        guest.post("/setup/x", {})
    if status == 404:
        assert guest.file("/none") is None


def test_a_guest_is_waited_for(serve):
    times: list[float] = []

    def late(connection: socket.socket) -> None:
        times.append(time.monotonic())
        content = client._PNG if len(times) > 1 else b"not yet"
        connection.sendall(OK % len(content) + content)

    serve(late).wait_ready(10.0)
    assert len(times) == 2


def test_a_guests_own_proxy_settings_are_nothing_to_us(serve, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert serve(sends(client._PNG)).screenshot() == client._PNG


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.5", Address("10.0.0.5", 5000, 9222, 8080)),
        ("http://host:5001/", Address("host", 5001)),
        ("localhost:5000:9223:8006:8081", Address("localhost", 5000, 9223, 8081)),
    ],
)
def test_addresses(text, address):
    assert read_address(text) == address


@pytest.mark.parametrize("text", ["", "host:", "host:x", "host:70000", "host:1:2", "https://host:1"])
def test_addresses_that_are_none(text):
    with pytest.raises(ConfigError, match="env.address"):
        read_address(text)
