"""A small toy world for `video-thinker synthesize`, and servers that stand in for its models."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import diskcache
import yaml

from tests import launcher
from video_thinker.synthesis import run
from video_thinker.synthesis.outputs import ITEM_FILES, RESULTS
from video_thinker.toyworld.build import captioned_rows
from video_thinker.toyworld.questions import KINDS, ask, to_item
from video_thinker.toyworld.teacher import ToyTeacher
from video_thinker.toyworld.teacher_server import MODEL
from video_thinker.toyworld.world import Clip, sample_clip, write_mp4

DERIVED = (RESULTS, *ITEM_FILES, "dropped.jsonl", "card.json", "card.md")
NUM_CLIPS = 6


@dataclass
class World:
    """Clips by sample id; `folder` holds media/ and the raw files captions.jsonl and questions.jsonl."""

    folder: Path
    clips: dict[str, Clip]

    def config(self, base_url: str, **changes) -> dict:
        """Write a config; `endpoint` changes both endpoints."""
        endpoint = {"model": MODEL, "base_url": base_url, "timeout_s": 5.0, **changes.pop("endpoint", {})}
        return {
            "sources": {
                name: {"source": "videos", "file": str(self.folder / f"{name}.jsonl")}
                for name in ("captions", "questions")
            },
            "media_root": str(self.folder),
            "teacher": endpoint,
            "validator": endpoint,
            "min_video_frames": 16,
            "test_share": 0.3,
            "max_backoff_s": 0.1,
            **changes,
        }


def make_world(folder: Path) -> World:
    """Six clips, each with captions and with a question whose segments are to be captioned from frames."""
    rng = random.Random("synthesis tests")
    clips = {f"clip-{i}": sample_clip(rng, "train_grpo") for i in range(NUM_CLIPS)}
    (folder / "media").mkdir(parents=True)
    questions = []
    for i, (name, clip) in enumerate(clips.items()):
        write_mp4(clip, folder / "media" / f"{name}.mp4")
        item = to_item(ask(clip, KINDS[i % 4], i % 4, rng), f"question-{i}", f"media/{name}.mp4")
        item["segments"] = [{**segment, "caption": ""} for segment in item["segments"]]
        questions.append(item)
    write_jsonl(folder / "captions.jsonl", captioned_rows(clips))
    write_jsonl(folder / "questions.jsonl", questions)
    return World(folder, {**clips, **{f"question-{i}": clip for i, clip in enumerate(clips.values())}})


@dataclass(frozen=True)
class WatchedTeacher(ToyTeacher):
    """Notes how many images came with each request, and when."""

    images: dict[str, int] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)

    def reply(self, sample_id, stage, attempt, payload, num_images):
        self.images[f"{sample_id}/{stage}/{attempt}"] = num_images
        self.times.append(time.monotonic())
        return super().reply(sample_id, stage, attempt, payload, num_images)


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def synthesize(out: Path, config: dict, *overrides: str) -> int:
    """Run the command in this process; its exit code."""
    return run.main([write_config(out, config), f"output_dir={out}", *overrides])


def write_config(out: Path, config: dict) -> str:
    out.parent.mkdir(exist_ok=True)
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    return str(path)


def contents(out: Path) -> dict[str, bytes]:
    """Give the bytes of all files that are made of the replies."""
    return {name: (out / name).read_bytes() for name in DERIVED}


def num_stored(out: Path) -> int:
    """Count the replies in a folder's cache."""
    if not (out / "cache" / "replies" / "cache.db").is_file():
        return 0
    with diskcache.Cache(str(out / "cache" / "replies")) as cache:
        return sum(isinstance(key, str) for key in cache)


def start(out: Path, config: dict) -> launcher.Popen:
    """Start the command as a process of its own."""
    command = ["-m", "video_thinker.cli", "synthesize", write_config(out, config), f"output_dir={out}"]
    return launcher.Popen(command, stdout=launcher.DEVNULL, stderr=launcher.DEVNULL)


Script = Callable[[int, str, dict], tuple]


@contextmanager
def scripted_server(script: Script) -> Iterator[str]:
    """Serve what `script(number, Authorization header, body)` of a request gives: status, body, headers if any.

    A body in bytes is sent as it is.
    """
    count = iter(range(1_000_000))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_POST(self):
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            if not raw:
                return  # the client has gone
            body = json.loads(raw)
            status, reply, *headers = script(next(count), self.headers["Authorization"], body)
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def chat_completion(text: str, **message) -> dict:
    """Write the body of a reply."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


class CaptionTeacher:
    """Works from the request alone, for rows of real data: asks what happens right after the first segment.

    Its questions need the first two segments, and its answers from notes are right if both are noted.
    """

    def reply(self, sample_id, stage, attempt, payload, num_images):
        if stage == "question":
            first, second = (segment["caption"] for segment in payload["segments"][:2])
            distractors = [f"Something else happens ({i})." for i in range(payload["num_options"] - 1)]
            question = {"question": f"What comes right after this: {first}", "answer": second}
            return json.dumps({**question, "distractors": distractors, "segments": [1, 2]})
        if stage.startswith("caption"):
            return json.dumps({"caption": f"seen in {num_images} frames"})
        if stage == "trace":
            blocks = [
                f"<time>{one['time']}</time> <caption>{one['caption']}</caption> <think>I note it.</think>"
                for one in payload["segments"]
            ]
            return f"I look for the moments. {' '.join(blocks)} So that is it.\n<answer>{payload['answer']}</answer>"
        captions = {note["caption"] for note in payload["notes"]}
        asked = payload["question"].partition(": ")[2]
        right = [o[0] for o in payload["options"] if o[3:] in captions and asked in captions - {o[3:]}]
        return json.dumps({"letters": right})
