# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What shows a recording: Rerun's window, a page for a browser on this machine, or a file.

Rerun's viewer listens on all of a machine's addresses and sends usage statistics, unless told otherwise; its page sends
them from the browser, where nothing can be told. Here it listens on this machine's own address alone, its settings say
that statistics are off, and the page may connect to nothing but what serves it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import rerun as rr

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError, require
from rt_panoptic_ros.files import atomic_path, cache_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SUFFIX = ".rrd"
HOST = "127.0.0.1"

_MEMORY = "25%"  # of the machine's that a viewer takes; then the oldest frames go
_START_S = 60.0  # that a viewer may take to start, on a busy machine
_STOP_S = 10.0
_POLL_S = 0.05
_LAST_PORT = 65535
_SOFTWARE_IN_PAGE = "'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob: data:"


@dataclass(frozen=True)
class Viewer:
    """What shows a recording."""

    sink: Any  # Rerun's, for `ViewRecorder`
    place: str  # for the user: what to look at
    ending: str = ""  # for the user: how it ends, once all frames are there
    process: subprocess.Popen[bytes] | None = None

    @property
    def is_open(self) -> bool:
        """Whether someone can still look; a file always is."""
        return self.process is None or self.process.poll() is None


@contextmanager
def open_file(path: Path) -> Iterator[Viewer]:
    """Give a viewer that writes a file, to be looked at later.

    Raises:
        InvalidInputError: It has another suffix, by which Rerun knows its files, or is there already.
        OSError: It can't be written.
    """
    if path.suffix != SUFFIX:
        raise InvalidInputError(f"expected --out to name a file that ends in {SUFFIX}, got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.open("xb").close()
    except FileExistsError:
        raise InvalidInputError(f"expected a new file, got {path}: name another, or delete that one") from None
    yield Viewer(rr.FileSink(str(path)), f"{path}: look at it with `rt-panoptic view {path}`")


@contextmanager
def open_window(recording: Path | None = None) -> Iterator[Viewer]:
    """Give a viewer that is a window of this machine's screen, closed at the end of the block.

    Args:
        recording: A file that it shows.

    Raises:
        UnavailableError: There is no screen, or the viewer doesn't start.
    """
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UnavailableError(
            "expected a screen for a window, found neither DISPLAY nor WAYLAND_DISPLAY: write a file with "
            f"--out FILE{SUFFIX}, or serve a page for a browser with --web"
        )
    port = free_port()
    shown = ("--expect-data-soon",) if recording is None else (str(recording),)
    with running_viewer(port, "--hide-welcome-screen", *shown) as process:
        yield Viewer(rr.GrpcSink(data_url(port)), "the window", ": close the window to end", process)


@contextmanager
def open_page(port: int) -> Iterator[Viewer]:
    """Give a viewer that is a page, at `port`, for browsers of this machine; its data come through the next port.

    Raises:
        InvalidInputError: There is no such port, or no next one.
        UnavailableError: A port is taken, or the viewer doesn't start.
    """
    require(port < _LAST_PORT, f"--web with a port below {_LAST_PORT}, as its data come through the next", port)
    for needed in (port, port + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, needed))
            except OSError as error:
                raise UnavailableError(
                    f"expected the ports {port} and {port + 1} to be free, got {needed}: {error.strerror}; "
                    "choose others with --web PORT"
                ) from None
    pages = free_port()
    origins = [word for host in (HOST, "localhost") for word in ("--cors-allow-origin", f"http://{host}:{port}")]
    with ExitStack() as stack:
        options = ("--serve-web", "--web-viewer-port", str(pages), *origins)
        process = stack.enter_context(running_viewer(port + 1, *options))
        _await(lambda: accepts(pages), process)
        server = ThreadingHTTPServer((HOST, port), _page_handler(f"http://{HOST}:{pages}", port + 1))
        threading.Thread(target=server.serve_forever, name="page", daemon=True).start()
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        address = f"http://localhost:{port}/?url={quote(data_url(port + 1, 'localhost'), safe='')}"
        yield Viewer(rr.GrpcSink(data_url(port + 1)), address, ": press Ctrl-C to end", process)


@contextmanager
def running_viewer(port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run Rerun's viewer, which takes data at `port`, while the block runs.

    Raises:
        UnavailableError: It doesn't start.
    """
    spec = importlib.util.find_spec("rerun_cli")
    assert spec is not None, "rerun-sdk has it"
    assert spec.origin is not None
    program = Path(spec.origin).with_name("rerun")  # itself: its Python wrapper would leave it running
    command = [str(program), "--bind", HOST, "--port", str(port), "--memory-limit", _MEMORY, *options]
    process = subprocess.Popen(command, env=quiet_environment(os.environ), stdin=subprocess.DEVNULL)
    try:
        _await(lambda: accepts(port), process)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def quiet_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a viewer that sends no usage statistics and logs only what is wrong.

    Rerun has no variable for the former, only a file in the user's settings (`rerun analytics disable`). It is given
    settings of its own, so that the user's need not be touched.

    Args:
        inherited: The present environment.
    """
    settings = cache_directory() / "viewer"
    file = settings / "rerun" / "analytics.json"
    document = {
        "analytics_enabled": False, "analytics_id": "", "metadata": {}, "config_file_path": str(file),
        "data_dir_path": str(settings / "analytics"),
    }  # fmt: skip
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(document), encoding="utf-8")
    kept = {name: value for name, value in inherited.items() if name != "FORCE_RERUN_ANALYTICS"}
    return {"RUST_LOG": "warn", **kept, "XDG_CONFIG_HOME": str(settings)}


def _page_handler(pages: str, data_port: int) -> type[BaseHTTPRequestHandler]:
    """Return what hands on Rerun's page, from the address `pages`, and forbids it all other connections."""
    data = " ".join(f"http://{host}:{data_port}" for host in (HOST, "localhost"))
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever http_proxy says
    policy = f"default-src 'self' {_SOFTWARE_IN_PAGE}; connect-src 'self' {data} blob: data:"

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                with directly.open(f"{pages}{self.path}", timeout=_START_S) as answer:
                    status, kind, content = answer.status, answer.headers["Content-Type"], answer.read()
            except urllib.error.HTTPError as error:
                status, kind, content = error.code, "text/plain", b""
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", policy)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Leave each request untold."""

    return Page


def _await(condition: Any, process: subprocess.Popen[bytes]) -> None:
    """Wait for what a viewer that starts brings about.

    Raises:
        UnavailableError: It ended, or it took too long.
    """
    deadline_s = time.monotonic() + _START_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline_s:
            state = "did not start in time" if process.poll() is None else f"ended with status {process.returncode}"
            raise UnavailableError(
                f"expected Rerun's viewer to start, but it {state} (see above): write a file with --out FILE{SUFFIX}"
            )
        time.sleep(_POLL_S)


def accepts(port: int) -> bool:
    """Return whether something listens at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def free_port() -> int:
    """Return a port of this machine that nothing listens at now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def data_url(port: int, host: str = HOST) -> str:
    """Return the address at which a viewer takes data."""
    return f"rerun+http://{host}:{port}/proxy"
