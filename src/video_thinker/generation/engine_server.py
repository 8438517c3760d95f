"""Serves an engine over HTTP: `GET /v1/status`, `POST /v1/weights`, `POST /v1/sample` (messages of `wire.py`).

The engine works in one thread, one request after the other. While it works, the answer already runs: a beat every
second says that the server is alive, so that a client notices within seconds if it is not.

No message names a file. Bodies are bounded, and refused before they are read where the token is wrong.
"""

from __future__ import annotations

import hmac
import json
import logging
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

from video_thinker.errors import ConfigError, NonFiniteError, NotEnoughMemoryError, VideoThinkerError
from video_thinker.generation.served import Served, StaleWeightsError
from video_thinker.generation.wire import (
    BEAT,
    BEGIN,
    CONTENT_TYPE,
    BrokenMessageError,
    Message,
    pack,
    pack_sampled,
    read_asked,
    unpack,
)

logger = logging.getLogger(__name__)

BEAT_S = 1.0
MAX_CONNECTIONS = 64
READ_TIMEOUT_S = 60.0
"""How long a client may be silent in the middle of its request."""

ERRORS: dict[type[Exception], str] = {
    StaleWeightsError: "stale",
    BrokenMessageError: "broken",
    ConfigError: "config",
    NonFiniteError: "nonfinite",
    NotEnoughMemoryError: "memory",
    VideoThinkerError: "engine",
}
"""What an engine says no with -> the word that the client makes an error of; the first that fits."""


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine only."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Worker:
    """One thread that does what the engine does: its threads and its random numbers are those of one caller."""

    def __init__(self) -> None:
        """Start the thread."""
        self._jobs: queue.Queue[tuple[Future[bytes], Callable[[], bytes]]] = queue.Queue()
        threading.Thread(target=self._work, name="engine", daemon=True).start()

    def submit(self, job: Callable[[], bytes]) -> Future[bytes]:
        """Do a job after those that wait; one that is cancelled meanwhile is not begun."""
        future: Future[bytes] = Future()
        self._jobs.put((future, job))
        return future

    def _work(self) -> None:
        while True:
            future, job = self._jobs.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001  # raised again where the result is waited for
                future.set_exception(error)


class EngineServer(ThreadingHTTPServer):
    """Listens at an address from `server_activate` on; the address is taken at once.

    Args:
        host: Name or number.
        port: 0 takes a free one.
        token: What each request must bring, if it is set.
        max_body_bytes: Longest request.

    Raises:
        ConfigError: the address cannot be taken.
    """

    daemon_threads = True
    allow_reuse_address = True
    served: Served

    def __init__(self, host: str, port: int, token: str | None, max_body_bytes: int) -> None:
        """See the class."""
        self.token, self.max_body_bytes = token, max_body_bytes
        self.local = is_loopback(host)
        self.worker = Worker()
        self.places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler, bind_and_activate=False)
        try:
            self.server_bind()
        except OSError as error:
            raise ConfigError(
                f"host={host}, port={port}: the address cannot be taken ({error}); choose another port."
            ) from None

    @property
    def url(self) -> str:
        """The address for clients."""
        host, port = self.server_address[:2]
        host = host.decode() if isinstance(host, bytes | bytearray) else str(host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection, or close it where there are too many."""
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""
        logger.debug("a connection ended early", exc_info=True)

    def status(self) -> bytes:
        """Say what is served, and with which weights."""
        identity = self.served.identity
        words = {"boot": identity.boot, "engine": identity.engine, "model": identity.model, "dtype": identity.dtype}
        return pack({**words, "weights": self.served.weights, "max_body_bytes": self.max_body_bytes})

    def take_weights(self, message: Message) -> bytes:
        """Stage a part of new weights, and take all with the last one."""
        sender, part = message.word("sender", str), message.word("part", int)
        name, is_last = message.word("weights", str), message.word("last", bool)
        self.served.stage(sender, part, message.tensors)
        if is_last:
            self.served.commit(sender, name)
            logger.info("took the weights %s", name)
        return self.status()

    def sample(self, message: Message) -> bytes:
        """Draw completions."""
        asked = read_asked(message)
        sampled, rng_state = self.served.sample(asked)
        return pack_sampled({"boot": self.served.identity.boot, "weights": asked.weights}, sampled, rng_state)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: EngineServer
    protocol_version = "HTTP/1.1"
    server_version = "video-thinker"
    sys_version = ""
    timeout = READ_TIMEOUT_S

    def do_GET(self) -> None:
        """Answer a question about the server."""
        if not self._may_ask():
            return
        if self.path != "/v1/status":
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such path")
            return
        body = self.server.status()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Take weights, or sample."""
        if not self._may_ask():
            return
        work = {"/v1/weights": self.server.take_weights, "/v1/sample": self.server.sample}.get(self.path)
        if work is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such path")
            return
        if self.headers.get("Content-Type") != CONTENT_TYPE:
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the Content-Type must be {CONTENT_TYPE}")
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "a Content-Length is needed")
            return
        if int(length) > self.server.max_body_bytes:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {self.server.max_body_bytes} bytes are read")
            return
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            self.close_connection = True
            return
        try:
            message = unpack(body)
        except BrokenMessageError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        del body
        self._answer(self.server.worker.submit(lambda: work(message)))

    def _may_ask(self) -> bool:
        """Check the token, and on one's own machine that no web page asks by a name of its own (DNS rebinding)."""
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if self.server.token is not None:
            given = self.headers.get("Authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(given, f"Bearer {self.server.token}".encode()):
                self._refuse(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")
                return False
        elif not is_loopback(host):
            self._refuse(HTTPStatus.FORBIDDEN, "without a token, only this machine may ask, by a loopback address")
            return False
        return True

    def _answer(self, work: Future[bytes]) -> None:
        """Beat until the work is done, then send what it gave."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while not wait([work], BEAT_S).done:
                self._chunk(BEAT)
            error = work.exception()
            self._chunk(BEGIN + (work.result() if error is None else said(error)))
            self._chunk(b"")
        except OSError:
            work.cancel()  # nobody waits for it any more
            self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Say no before the body is read; the connection ends."""
        body = json.dumps({"error": why}).encode()
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name of the base
        """Requests are no news; headers, which hold the token, are never written."""
        logger.debug(format, *args)


def said(error: BaseException) -> bytes:
    """Write an error as an answer."""
    kind = next((word for one, word in ERRORS.items() if isinstance(error, one)), "internal")
    if kind == "internal":
        logger.error("the engine failed", exc_info=error)
    words = str(error) if kind != "internal" else f"{type(error).__name__}: {error}"
    return pack({"error": kind, "said": " ".join(words.split())[:1000]})
