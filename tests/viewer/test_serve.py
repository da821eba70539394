"""Pages are served to this machine alone, and nothing beside them."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmturn.errors import ConfigError, DataError
from mmturn.viewer.serve import make_server, serve


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "site"
    (folder / "sub").mkdir(parents=True)
    (folder / "report.html").write_text("<p>report")
    (folder / "sub" / "a b.json").write_text("{}")
    (folder / ".hidden").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    return folder


@pytest.fixture
def ask(site: Path) -> Iterator[object]:
    servers = []

    def request(target: str, root: Path = site, host: str | None = None, method: str = "GET") -> tuple[int, str]:
        server = make_server(root)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
        connection.putrequest(method, target, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{server.server_address[1]}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    yield request
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_folder(ask) -> None:  # type: ignore[no-untyped-def]
    assert ask("/") == (200, "<p>report")
    assert ask("/report.html?x=1") == (200, "<p>report")
    assert ask("/sub/a%20b.json") == (200, "{}")
    assert ask("/", method="HEAD") == (200, "")


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/sub/../../secret.txt",
        "/..%2fsecret.txt",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/link.txt",
        "/.hidden",
        "/sub",
        "/sub/",
        "/none",
        "/report.html%00",
        "/..\\secret.txt",
        "/" + "a" * 5000,
    ],
)
def test_nothing_else(ask, target: str) -> None:  # type: ignore[no-untyped-def]
    status, body = ask(target)
    assert status in (404, 414) and "secret" not in body.replace("secret.txt", "") and "root:" not in body


def test_one_file(ask, site: Path) -> None:  # type: ignore[no-untyped-def]
    page = site / "report.html"
    assert ask("/", page) == ask("/report.html", page) == (200, "<p>report")
    assert ask("/sub/a%20b.json", page)[0] == ask("/link.txt", page)[0] == 404
    assert ask("/", site / "sub")[0] == 404  # a folder without a page


def test_other_names_of_this_machine_are_refused(ask) -> None:  # type: ignore[no-untyped-def]
    assert ask("/", host="evil.example")[0] == 403
    assert ask("/", host="evil.example:80")[0] == 403
    assert ask("/", host="localhost:1")[0] == 200
    assert ask("/", method="POST")[0] == 501


@pytest.mark.parametrize("host", ["0.0.0.0", "", "192.168.1.5", "::", "example.com"])
def test_only_loopback_is_bound(site: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="served to this machine alone"):
        make_server(site, host=host)


def test_wrong_use_is_named(site: Path) -> None:
    with pytest.raises(DataError, match="nothing to serve"):
        make_server(site / "none.html")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="cannot be used"):
            make_server(site, taken.getsockname()[1])
    with pytest.raises(ConfigError, match="port 99999 cannot be used"):
        make_server(site, 99999)


def test_serve_tells_its_address_and_ends_on_interrupt(site: Path) -> None:
    def ready(address: str) -> None:
        said.append(address)
        raise KeyboardInterrupt

    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        serve(site / "report.html", ready=ready)
    assert said[0].startswith("http://127.0.0.1:") and said[0].endswith("/report.html")
