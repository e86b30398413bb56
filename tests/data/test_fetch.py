"""Fetching: atomic, once for all processes, limited in time, with reported failures.

The servers are on this machine; no test reaches the network.
"""

import http.server
import multiprocessing
import socket
import threading
import time
from pathlib import Path

import pytest

from genzoo.core.files import write_atomically
from genzoo.data import fetch

CONTENT = b"x" * 300_000


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == "/missing":
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/slow":
            time.sleep(0.4)
        if self.path == "/stalls":
            self.wfile.write(CONTENT[:1000])
            self.wfile.flush()
            self.server.released.wait(5)
        elif self.path == "/cut":
            self.wfile.write(CONTENT[:1000])
        else:
            self.wfile.write(CONTENT)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.released = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def leftovers(folder: Path):
    return [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]


def test_a_download_arrives_whole(server, tmp_path):
    path = fetch.download(f"{server.url}/good", tmp_path / "file")
    assert path.read_bytes() == CONTENT and leftovers(tmp_path) == ["file"]
    fetch.download(f"{server.url}/good", path)
    assert len(server.asked) == 1, "what is there is not fetched again"


@pytest.mark.parametrize(
    "page, reason",
    [("missing", "404"), ("cut", "of 300000 bytes"), ("stalls", "no answer within")],
)
def test_failures_leave_nothing_behind(server, tmp_path, page, reason):
    with pytest.raises(fetch.Unavailable, match=reason):
        fetch.download(f"{server.url}/{page}", tmp_path / "file", timeout=0.5)
    assert leftovers(tmp_path) == []


def test_no_connection_is_a_reason(tmp_path):
    with socket.socket() as taken:  # bound but not listening, so connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file"
        with pytest.raises(fetch.Unavailable, match="no connection"):
            fetch.download(url, tmp_path / "file", timeout=2)


def _download(url, path):
    assert fetch.download(url, Path(path)).read_bytes() == CONTENT


def test_processes_that_start_together_fetch_once(server, tmp_path):
    context = multiprocessing.get_context("spawn")
    arguments = (f"{server.url}/slow", str(tmp_path / "file"))
    processes = [context.Process(target=_download, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(server.asked) == 1 and leftovers(tmp_path) == ["file"]


def test_without_npm_the_reason_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fetch.Unavailable, match="npm is not on the PATH"):
        fetch.npm_pack("some-package@1.0.0", tmp_path)


def fake_npm(folder: Path, body: str) -> None:
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{body}\n")
    npm.chmod(0o755)


def test_npm_failures_and_results(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    fake_npm(tmp_path, "echo 'E404 no such package' >&2; exit 1")
    with pytest.raises(fetch.Unavailable, match=r"code 1 .*E404"):
        fetch.npm_pack("some-package@1.0.0", tmp_path)
    fake_npm(tmp_path, "exec sleep 20")
    with pytest.raises(fetch.Unavailable, match="did not end"):
        fetch.npm_pack("some-package@1.0.0", tmp_path, timeout=0.2)
    fake_npm(tmp_path, "echo content > some-package-1.0.0.tgz")
    assert fetch.npm_pack("some-package@1.0.0", tmp_path).read_text() == "content\n"
    assert sorted(leftovers(tmp_path)) == ["npm", "some-package-1.0.0.tgz"]


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "mine"))
    assert fetch.cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("GENZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.cache_dir() == tmp_path / "genzoo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert fetch.cache_dir() == Path.home() / ".cache" / "genzoo"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two" and leftovers(path.parent) == ["file"]
    assert fetch.md5(path) == fetch.md5(b"two") == "b8a9f715dbb64fd5c56e7783c6820a61"
