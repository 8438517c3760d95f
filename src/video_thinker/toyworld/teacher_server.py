"""`video-thinker toy teacher --seed S`: the toy teacher behind an OpenAI-compatible address on this machine.

    video-thinker toy build --out runs/toy --seed 0
    video-thinker toy teacher --seed 0 --port 8321 --error-rate 0.3
    video-thinker synthesize configs/synthesis/toy.yaml

It is no model: see `video_thinker.toyworld.teacher`. Faults can be put in, as real servers have them: 429 with and
without `Retry-After`, 500, replies that come too late, JSON cut off in the middle, refusals, and replies cut off at the
token limit.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from video_thinker.toyworld.teacher import CannotSayError, ToyTeacher

MODEL = "toy-teacher"
FAULTS = ("429", "429_retry_after", "500", "timeout", "truncated_json", "refusal", "token_limit")
CHARS_PER_TOKEN = 4


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how often; a request that failed on the way may fail again.

    `delay_s` is how late a late reply is; `latency_s` how long every reply takes.
    """

    rate: float = 0.0
    kinds: Sequence[str] = FAULTS
    delay_s: float = 2.0
    latency_s: float = 0.0
    seed: int = 0

    def draw(self, request: str, number: int) -> str | None:
        """Choose what goes wrong with the nth try of a request, if anything."""
        rng = random.Random(f"faults {self.seed} {request} {number}")
        return rng.choice(list(self.kinds)) if rng.random() < self.rate else None


@dataclass
class Log:
    """What the server did: tries by request, and chat completions it sent in full, by request."""

    tries: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def summary(self) -> dict[str, Any]:
        """Count replies; `repeated` are those to requests that had been answered before."""
        with self.lock:
            answered = sum(self.answered.values())
            return {"answered": answered, "repeated": answered - len(self.answered), "faults": dict(self.faults)}


class TeacherServer:
    """Serves a toy teacher on loopback, in a thread of this process; use it as a context manager."""

    def __init__(self, teacher: ToyTeacher, faults: Faults | None = None, port: int = 0) -> None:
        """Take the port (0: any free one); requests are answered from `__enter__` on."""
        self.log = Log()
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.teacher, self._http.faults, self._http.log = teacher, faults or Faults(), self.log
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def base_url(self) -> str:
        """The address for the endpoint's `base_url`."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> TeacherServer:
        """Start to serve."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop to serve."""
        self._http.shutdown()
        self._http.server_close()

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    teacher: ToyTeacher
    faults: Faults
    log: Log

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay calm where a client was killed; print what else went wrong."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the log is counted."""

    def do_GET(self) -> None:
        """List the model, or what was done."""
        if self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "toy world"}]})
        elif self.path == "/log":
            self._send(200, self.server.log.summary())
        else:
            self._send(404, _error("no such page"))

    def do_POST(self) -> None:
        """Answer a chat completion, or fail at it."""
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/v1/chat/completions":
            self._send(404, _error("no such page"))
            return
        request = self.headers.get("X-Client-Request-Id", "")
        log, faults = self.server.log, self.server.faults
        with log.lock:
            log.tries[request] += 1
            number = log.tries[request]
        fault = faults.draw(request, number)
        if fault in ("refusal", "token_limit"):  # these are replies: the same request gets the same one
            fault = None
        else:
            with log.lock:
                log.faults[fault or "none"] += 1
        time.sleep(faults.latency_s + (faults.delay_s if fault == "timeout" else 0.0))
        # A client that did not wait or was killed has closed the connection.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._answer(request, raw, fault)

    def _answer(self, request: str, raw: bytes, fault: str | None) -> None:
        if fault in ("429", "429_retry_after"):
            self._send(429, _error("slow down"), {"Retry-After": "0.05"} if fault == "429_retry_after" else {})
        elif fault == "500":
            self._send(500, _error("something broke"))
        else:
            try:
                body = self._complete(request, json.loads(raw))
            except (CannotSayError, KeyError, ValueError) as error:
                self._send(400, _error(f"{type(error).__name__}: {error}"))
                return
            self._send(200, body, cut=fault == "truncated_json")
            if fault is None:
                with self.server.log.lock:
                    self.server.log.answered[request] += 1

    def _complete(self, request: str, body: Mapping[str, Any]) -> dict[str, Any]:
        sample_id, stage, attempt = request.rsplit("/", 2)
        content = body["messages"][-1]["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        payload = json.loads(parts[0]["text"])
        num_images = sum(part["type"] == "image_url" for part in parts)
        text = self.server.teacher.reply(sample_id, stage, attempt, payload, num_images)
        fault = self.server.faults.draw(request, 0)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        finish_reason = "stop"
        if fault == "refusal":
            message.update(content=None, refusal="I would rather not say.")
        elif fault == "token_limit":
            message["content"], finish_reason = text[: len(text) // 2], "length"
        prompt_tokens = sum(len(str(m["content"])) for m in body["messages"] if isinstance(m["content"], str))
        prompt_tokens = (prompt_tokens + len(parts[0]["text"]) * isinstance(content, list)) // CHARS_PER_TOKEN
        usage = {"prompt_tokens": prompt_tokens + 100 * num_images, "completion_tokens": len(text) // CHARS_PER_TOKEN}
        return {
            "id": f"toy-{request}",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
            "usage": {**usage, "total_tokens": sum(usage.values())},
        }

    def _send(
        self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None, *, cut: bool = False
    ) -> None:
        data = json.dumps(body).encode()
        data = data[: len(data) // 2] if cut else data
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "toy_teacher", "param": None, "code": None}}
