"""Evaluation against a server: stand-ins with faults, and that the pixels, and never the key, leave the machine."""

from __future__ import annotations

import base64
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import make_item, write_items
from tests.synthesis_helpers import scripted_server
from video_thinker import cli
from video_thinker.config import ServerArguments, VideoArguments
from video_thinker.data.video import VideoSampling, load_video
from video_thinker.errors import ConfigError, DataError, ServerError
from video_thinker.evaluation import run as runner
from video_thinker.generation import backend
from video_thinker.generation.controls import shuffled_order
from video_thinker.generation.openai import OPENAI_CLIP_MEAN
from video_thinker.keys.settings import make_arguments

KEY = "sk-secret-4711"


def reply(text: str | None = "<answer>D</answer>", finish_reason: str = "stop", **message) -> dict:
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    base = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
    return {**base, "choices": [choice], "usage": usage}


class Served:
    """A server that notes what it is sent, and answers as `answer(number, body)` says: status, body, headers."""

    def __init__(self, answer: Callable[[int, dict], tuple] = lambda number, body: (200, reply())) -> None:
        self.answer, self.bodies, self.keys = answer, [], []

    def __call__(self, number: int, key: str, body: dict) -> tuple:
        self.bodies.append(body)
        self.keys.append(key)
        return self.answer(number, body)


@pytest.fixture
def evaluate(tmp_path, media_root, items_file, monkeypatch):
    """Run an evaluation against a script; gives the exit code."""
    monkeypatch.setattr(backend, "load_backend", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setenv("SERVER_KEY", KEY)
    config = {
        "backend": "openai",
        "api_key_env": "SERVER_KEY",
        "model_name_or_path": "tuned",
        "splits": {"id": str(items_file)},
        "media_root": str(media_root),
        "output_dir": str(tmp_path / "out"),
        "prompt_style": "plain",
        "fps": 1.0,
        "max_pixels": 56 * 56,
        "batch_size": 3,
        "max_new_tokens": 12,
        "max_retries": 3,
        "max_backoff_s": 0.02,
    }

    def run(served: Served, *overrides: str, main=runner.main) -> int:
        with scripted_server(served) as url:
            path = tmp_path / "eval.yaml"
            # The address is a part of a run's settings; each stand-in has a port of its own.
            path.write_text(yaml.safe_dump({**config, "base_url": url}))
            manifest = tmp_path / "out" / "manifest.json"
            if manifest.exists():
                there = json.loads(manifest.read_text())
                there["settings"]["base_url"] = url
                manifest.write_text(json.dumps(there))
            return main([str(path), *overrides])

    return run


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def rows(out: Path, key: str = "id") -> list[dict]:
    return [json.loads(line) for line in (out / "predictions" / f"{key}.jsonl").read_text().splitlines()]


def images(body: dict) -> list[np.ndarray]:
    content = body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))) for url in urls]


def texts(body: dict) -> list[str]:
    content = body["messages"][-1]["content"]
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


def test_every_item_is_answered_and_a_rerun_sends_nothing(evaluate, out):
    served = Served()
    assert evaluate(served) == 0
    assert len(served.bodies) == 6 and set(served.keys) == {f"Bearer {KEY}"}
    assert [row["problem_id"] for row in rows(out)] == ["q0", "q1", "q2", "q3", "q4", "q5"]
    assert all((row["num_tokens"], row["finished"], row["error"]) == (5, True, None) for row in rows(out))
    metrics = json.loads((out / "metrics.json").read_text())["id"]
    assert (metrics["accuracy"], metrics["num_failed"]) == (pytest.approx(2 / 6), 0)
    assert rows(out)[0]["duration_s"] == pytest.approx(4.0)
    again = Served()
    assert evaluate(again) == 0 and again.bodies == []


def test_the_manifest_says_who_samples_and_who_cuts_patches(evaluate, out):
    evaluate(Served(), "num_samples=1")
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert settings["base_url"].startswith("http://127.0.0.1:") and settings["model"] == "tuned"
    assert (settings["backend"], settings["frame_sampling"], settings["patching"]) == ("openai", "client", "server")
    assert "model_sha256" not in settings and "dtype" not in settings


def test_requests_are_greedy_unless_asked_and_carry_what_the_config_says(evaluate):
    served = Served()
    evaluate(served, "num_samples=2", "extra_body={repetition_penalty: 1.0}")
    for body in served.bodies:
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("tuned", 0.0, 12)
        assert body["repetition_penalty"] == 1.0 and "seed" not in body and "top_p" not in body


def test_seeds_differ_between_samples_and_come_again(evaluate):
    drawn, again = Served(), Served()
    options = ["temperature=0.7", "top_p=0.9", "send_seed=true", "overwrite=true", "concurrency=1"]
    evaluate(drawn, *options)
    evaluate(again, *options)
    seeds = [body["seed"] for body in drawn.bodies]
    assert len(set(seeds)) == 6 and seeds == [body["seed"] for body in again.bodies]
    assert {(body["temperature"], body["top_p"]) for body in drawn.bodies} == {(0.7, 0.9)}


def test_frames_arrive_in_time_order_with_their_times(evaluate, media_root):
    served = Served()
    evaluate(served, "num_samples=1", "image_format=png")
    video = load_video(media_root / "a.mp4", VideoSampling(fps=1.0, max_pixels=56 * 56))
    sent = images(served.bodies[0])
    assert np.array_equal(np.stack(sent), video.frames.permute(0, 2, 3, 1).numpy())
    *labels, question = texts(served.bodies[0])
    assert [round(time_s, 2) for time_s in video.timestamps_s] == [0.0, 1.25, 2.62, 3.88]
    assert labels == ["Frame at 00:00:", "Frame at 00:01.2:", "Frame at 00:02.6:", "Frame at 00:03.9:"]
    assert question.startswith("Which color comes last?\nA. red") and question.endswith("Answer with the letter.")
    kinds = [part["type"] for part in served.bodies[0]["messages"][-1]["content"]]
    assert kinds == ["text", "image_url"] * 4 + ["text"]


def test_jpegs_show_the_frames(evaluate, media_root):
    served = Served()
    evaluate(served, "num_samples=1")
    assert "data:image/jpeg;base64," in json.dumps(served.bodies[0])
    frames = load_video(media_root / "a.mp4", VideoSampling(fps=1.0, max_pixels=56 * 56)).frames
    for image, frame in zip(images(served.bodies[0]), frames, strict=True):
        assert np.abs(image.mean((0, 1)) - frame.float().mean((1, 2)).numpy()).max() < 6


def test_controls_change_what_is_sent(evaluate):
    served = Served()
    evaluate(served, "num_samples=1", "video=[real,blank,shuffled,none]", "image_format=png")
    real, blank, shuffled, none = served.bodies
    assert all(image.std((0, 1)).max() > 5 for image in images(real))
    mean_color = np.array([round(255 * value) for value in OPENAI_CLIP_MEAN])
    assert len(images(blank)) == 4 and all((image == mean_color).all() for image in images(blank))
    order = shuffled_order(4, "0 q0")
    assert order != [0, 1, 2, 3] and all(
        np.array_equal(image, images(real)[place]) for image, place in zip(images(shuffled), order, strict=True)
    )
    assert texts(blank) == texts(shuffled) == texts(real)
    assert isinstance(none["messages"][-1]["content"], str) and texts(none) == texts(real)[-1:]


def test_several_videos_and_an_image_are_told_apart(evaluate, tmp_path):
    item = make_item("both", ["b.mp4", "still.png", "a.mp4"], data_type=["video", "image", "video"])
    item.pop("segments")
    served = Served()
    evaluate(served, f"splits={{id: {write_items(tmp_path / 'both.jsonl', [item])}}}", "prompt_style=trace")
    system, user = served.bodies[0]["messages"]
    assert system["role"] == "system" and system["content"].startswith("You are a video analyst.")
    labels = [text.partition(",")[0] for text in texts(served.bodies[0])[:-1]]
    assert labels == ["Video 1"] * 6 + ["Video 2"] * 4
    assert [part["type"] for part in user["content"]] == ["text", "image_url"] * 6 + ["image_url"] + [
        "text",
        "image_url",
    ] * 4 + ["text"]


FAULTS = {
    "429": (429, {"error": {"message": f"slow down {KEY}"}}),
    "500": (500, {"error": {"message": "out of memory"}}),
    "malformed": (200, b'{"choices": [{"mess'),
    "no choices": (200, {**reply(), "choices": []}),
    "an error with 200": (200, {"error": "queue is full"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_costs_nothing(evaluate, out, fault):
    served = Served(lambda number, body: FAULTS[fault] if number % 2 == 0 else (200, reply()))
    assert evaluate(served, "concurrency=1") == 0
    assert len(served.bodies) == 12 and all(row["error"] is None for row in rows(out))


@pytest.mark.parametrize("fault", [*FAULTS, "400"])
def test_a_fault_that_stays_is_failed_not_wrong_and_only_that_is_asked_again(evaluate, out, fault):
    bad = FAULTS.get(fault) or (400, {"error": {"message": "the prompt is too long"}})
    served = Served(lambda number, body: bad if "right after red" in texts(body)[-1] else (200, reply()))
    assert evaluate(served) == 1
    assert len(served.bodies) == 5 + (1 if fault == "400" else 3)
    metrics = json.loads((out / "metrics.json").read_text())["id"]
    assert (metrics["num_failed"], metrics["num_scored"]) == (1, 5)
    (failed,) = [row for row in rows(out) if row["error"]]
    assert failed["problem_id"] == "q1" and failed["status"] == "failed" and failed["score"] is None
    cause = {
        "429": "HTTP 429: slow down [key]",
        "500": "HTTP 500: out of memory",
        "400": "HTTP 400: the prompt is too long",
        "malformed": "the body is no JSON, or was cut",
    }.get(fault, "the response is no chat completion")
    assert cause in failed["error"] and "'tuned'" in failed["error"]
    repaired = Served()
    assert evaluate(repaired, "batch_size=6") == 0
    assert ["right after red" in texts(body)[-1] for body in repaired.bodies] == [True]


def test_a_server_that_says_when_to_come_back_is_obeyed(evaluate):
    times = []

    def answer(number, body):
        times.append(time.monotonic())
        return (429, {}, ("Retry-After", "0.4")) if number == 0 else (200, reply())

    assert evaluate(Served(answer), "num_samples=1", "max_backoff_s=5") == 0
    assert times[1] - times[0] >= 0.4


def test_a_request_without_an_answer_in_time_is_failed(evaluate, out):
    served = Served(lambda number, body: time.sleep(0.5) or (200, reply()))
    assert evaluate(served, "num_samples=1", "request_timeout_s=0.1", "max_retries=2") == 1
    assert len(served.bodies) == 2
    assert "timeout: no answer within 0.1 s" in rows(out)[0]["error"] and rows(out)[0]["status"] == "failed"


def test_an_answer_that_trickles_in_has_no_more_time(evaluate, out):
    """Each read is quick, so only a limit on the whole request ends it."""

    def trickle(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
            try:
                while True:
                    connection.sendall(b" ")
                    time.sleep(0.05)
            except OSError:
                return  # the client has gone

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=trickle, args=(listening,), daemon=True)
        server.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        options = ["num_samples=1", f"base_url={address}", "request_timeout_s=0.3", "max_retries=1"]
        assert evaluate(Served(), *options) == 1
        server.join()  # it goes on until the client has gone
    assert "timeout: no answer within 0.3 s" in rows(out)[0]["error"]


def test_a_server_that_is_away_stops_the_run_and_the_same_command_continues(evaluate, out):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(ServerError, match=rf"{address} is away: connection refused"):
        evaluate(Served(), "batch_size=1", f"base_url={address}", "max_retries=100")
    assert rows(out) == []
    assert evaluate(Served()) == 0 and len(rows(out)) == 6


def test_a_server_that_dies_in_a_batch_loses_no_answer(evaluate, out):
    """It gives two answers, then web pages of a proxy; those of the batch that failed are asked for again."""
    served = Served(lambda number, body: (200, reply()) if number < 2 else (502, b"<html>Bad Gateway</html>"))
    with pytest.raises(ServerError, match=r"3 requests in a row failed at every try.*HTTP 502: a web page \(HTML\)"):
        evaluate(served, "batch_size=6", "concurrency=1", "max_retries=2")
    assert len(served.bodies) == 2 + 3 * 2 and [row["error"] for row in rows(out)] == [None, None]
    again = Served()
    assert evaluate(again, "batch_size=6") == 0 and len(again.bodies) == 4


@pytest.mark.parametrize(("status", "named"), [(401, "SERVER_KEY"), (403, "SERVER_KEY"), (404, "'tuned'")])
def test_a_wrong_key_or_model_stops_the_run_at_once(evaluate, out, capsys, status, named):
    served = Served(lambda number, body: (status, {"error": {"message": f"no: {KEY}"}}))
    code = evaluate(served, "concurrency=1", main=lambda argv: cli.main(["eval", *argv]))
    assert code == 2 and len(served.bodies) == 1
    message = capsys.readouterr().err.split("ConfigError: ")[1]
    assert named in message and "no: [key]" in message and KEY not in message and message.count("\n") == 1
    assert rows(out) == []
    # Nothing was answered yet, so the run begins with another model's name in the same folder.
    assert evaluate(Served(), "model_name_or_path=other") == 0 and len(rows(out)) > 0


PINNED = (400, {"error": {"message": "Server is pinned to other"}})


def test_a_server_that_rejects_the_first_requests_alike_stops_the_run(evaluate, out):
    served = Served(lambda number, body: PINNED)
    with pytest.raises(ConfigError, match=r"refuses model 'tuned'.*pinned to other"):
        evaluate(served, "concurrency=2")
    assert len(served.bodies) <= 3 and rows(out) == []
    assert evaluate(Served(), "model_name_or_path=right") == 0


@pytest.mark.parametrize("other", [(200, reply()), (422, {}), (500, {})], ids=["an answer", "422", "500"])
def test_one_request_that_fares_otherwise_keeps_the_run_going(evaluate, out, other):
    served = Served(lambda number, body: other if number == 0 else PINNED)
    assert evaluate(served, "concurrency=2", "batch_size=1", "max_retries=1") == 1
    assert len(served.bodies) == 6 == len(rows(out))


def test_a_run_with_answers_is_not_stopped_by_those_that_fail_again(evaluate, out):
    first_only = Served(lambda number, body: (200, reply()) if number == 0 else PINNED)
    assert evaluate(first_only, "concurrency=1") == 1
    assert evaluate(Served(lambda number, body: PINNED), "concurrency=1") == 1
    assert sum(row["error"] is None for row in rows(out)) == 1


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (reply(None, None), "finish_reason None"),
        (reply(None, "tool_calls", tool_calls=[]), "finish_reason 'tool_calls'"),
        (reply(None, reasoning_content="<answer>D</answer>"), "reasoning_content: serve the model without a parser"),
    ],
)
def test_an_answer_whose_text_is_elsewhere_or_nowhere_is_failed(evaluate, out, answer, cause):
    assert evaluate(Served(lambda number, body: (200, answer)), "num_samples=1") == 1
    (row,) = rows(out)
    assert (row["status"], row["score"]) == ("failed", None) and cause in row["error"]


@pytest.mark.parametrize(
    ("answer", "text", "finished"),
    [
        (reply("It is D", "length"), "It is D", False),
        (reply("<answer>D</answer>", "content_filter"), "<answer>D</answer>", False),
        (reply(None, refusal="I cannot help."), "I cannot help.", False),
        (reply(None), "", True),
        (reply(""), "", True),
        (reply(None, "length"), "", False),
        ({**reply("  D \n"), "usage": None}, "D", True),
    ],
)
def test_refusals_and_cut_off_texts_are_answers(evaluate, out, answer, text, finished):
    assert evaluate(Served(lambda number, body: (200, answer)), "num_samples=1") == 0
    (row,) = rows(out)
    assert (row["completion"], row["finished"], row["error"]) == (text, finished, None)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_requests_of_a_batch_are_in_flight_at_once(evaluate, concurrency):
    lock, inside, most = threading.Lock(), 0, 0

    def answer(number, body):
        nonlocal inside, most
        with lock:
            inside, most = inside + 1, max(most, inside + 1)
        time.sleep(0.1)
        with lock:
            inside -= 1
        return 200, reply()

    assert evaluate(Served(answer), "batch_size=6", f"concurrency={concurrency}") == 0
    assert most == concurrency


def test_the_key_is_in_no_file_and_in_no_log(evaluate, out, caplog, capfd):
    caplog.set_level(logging.INFO)
    answers = [(200, reply(f"your key is {KEY}")), (400, {"error": {"message": f"bad {KEY}"}}), (400, {"detail": KEY})]
    evaluate(Served(lambda number, body: answers[number % 3]))
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {"manifest.json", "metrics.json", "id.jsonl"} <= {path.name for path in files}
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    captured = capfd.readouterr()
    assert KEY not in caplog.text + captured.out + captured.err
    assert "[key]" in (out / "predictions" / "id.jsonl").read_text()


def test_an_unreadable_video_is_failed_and_not_sent(evaluate, out, tmp_path):
    items = [make_item("bad", "broken.mp4"), make_item("good")]
    served = Served()
    splits = f"splits={{id: {write_items(tmp_path / 'items.jsonl', items)}}}"
    with pytest.raises(DataError, match="1 of 2 items cannot be shown"):
        evaluate(served, splits)
    assert evaluate(served, splits, "max_failed=0.5") == 0
    assert len(served.bodies) == 1 and "broken.mp4" in rows(out)[0]["error"]


def test_a_whole_file_can_be_sent(evaluate, out, media_root, tmp_path):
    items = write_items(tmp_path / "items.jsonl", [make_item("good"), make_item("bad", "broken.mp4")])
    served = Served()
    assert evaluate(served, "media=video_url", "video=[real,none]", f"splits={{id: {items}}}", "max_failed=0.5") == 0
    video, question = served.bodies[0]["messages"][-1]["content"]
    head, _, data = video["video_url"]["url"].partition(",")
    assert head == "data:video/mp4;base64" and base64.b64decode(data) == (media_root / "a.mp4").read_bytes()
    assert served.bodies[1]["messages"][-1]["content"] == question["text"] and len(served.bodies) == 2
    good, bad = rows(out)
    assert good["duration_s"] == pytest.approx(4.0) and "broken.mp4" in bad["error"]
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert (settings["frame_sampling"], settings["fps"]) == ("server", None)


def test_controls_that_need_our_frames_are_refused_with_whole_files(evaluate):
    with pytest.raises(ConfigError, match=r"shuffled change the frames"):
        evaluate(Served(), "media=video_url", "video=[real,shuffled]")


@pytest.mark.parametrize("change", ["image_format=png", "model_name_or_path=other", "extra_body={top_k: 1}"])
def test_other_settings_are_not_mixed_in(evaluate, change):
    evaluate(Served(), "num_samples=1")
    served = Served()
    with pytest.raises(ConfigError, match="other settings"):
        evaluate(served, "num_samples=1", change)
    assert served.bodies == []


def test_the_wording_of_times_is_part_of_the_prompts_hash(monkeypatch):
    from video_thinker.config import ModelArguments
    from video_thinker.generation import openai as openai_backend

    args = ServerArguments(backend="openai", base_url="http://h/v1")

    def sha256() -> str:
        described = openai_backend.describe_server(ModelArguments("m"), VideoArguments(), args, ["real"])
        return described["prompt_sha256"]

    before = sha256()
    monkeypatch.setattr(openai_backend, "frame_label", lambda time, video=None: f"At {time}")
    assert sha256() != before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backend": "vllm"}, "backend='vllm': must be one of local, openai"),
        ({"backend": "openai"}, "needs the address"),
        ({"backend": "openai", "base_url": "127.0.0.1:8000"}, "needs the address"),
        ({"backend": "openai", "base_url": f"http://me:{KEY}@host/v1"}, "user name, a query"),
        ({"backend": "openai", "base_url": f"http://host/v1?key={KEY}"}, "user name, a query"),
        ({"base_url": "http://host/v1"}, "backend=local asks no server"),
        ({"concurrency": 0}, "concurrency=0: must be a whole number of at least 1"),
        ({"request_timeout_s": 0.0}, "request_timeout_s=0.0: must be a number above 0"),
    ],
)
def test_settings_that_mean_nothing_are_named(fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_arguments([ServerArguments], fields, "a config")
    assert KEY not in str(caught.value)


def test_difficulty_draws_from_a_server_and_a_rerun_sends_nothing(tmp_path, media_root, items_file, monkeypatch):
    monkeypatch.setattr(backend, "load_backend", lambda *_: pytest.fail("a model was loaded"))
    letters = iter(range(10**6))
    served = Served(lambda number, body: (200, reply(f"<answer>{'ABCD'[next(letters) % 4]}</answer>")))
    out = tmp_path / "out"
    with scripted_server(served) as url:
        words = ["backend=openai", f"base_url={url}", "model_name_or_path=tuned", f"items_file={items_file}"]
        words += [f"media_root={media_root}", f"output_dir={out}", "num_generations=4", "fps=1.0", "max_pixels=3136"]
        config = tmp_path / "d.yaml"
        config.write_text("prompt_style: plain\n")
        assert cli.main(["difficulty", str(config), *words]) == 0
        sent = len(served.bodies)
        assert cli.main(["difficulty", str(config), *words]) == 0
    assert sent == len(served.bodies) == 4 * 6
    assert {(body["model"], body["temperature"]) for body in served.bodies} == {("tuned", 1.0)}
    rates = [json.loads(line) for line in (out / "pass_rates.jsonl").read_text().splitlines()]
    assert sum(rate["passes"] for rate in rates) > 0 and all(rate["completions"] == 4 for rate in rates)


def test_ask_takes_the_answer_of_a_server(media_root, monkeypatch, capsys):
    clip = media_root / "a.mp4"
    served = Served(lambda number, body: (200, reply("<answer>B</answer>")))
    with scripted_server(served) as url:
        flags = ["--model", "tuned", "--backend", "openai", "--base-url", url, "--fps", "1", "--no-picture"]
        assert cli.main(["ask", str(clip), "Which?", *flags, "--options", "red", "blue"]) == 0
    assert "B. blue" in capsys.readouterr().out
    assert len(images(served.bodies[0])) == 4 and served.bodies[0]["model"] == "tuned"


def test_ask_says_what_a_server_refuses(media_root, capsys):
    clip = media_root / "a.mp4"
    with scripted_server(Served(lambda number, body: (404, {"error": "no such model"}))) as url:
        flags = ["--model", "tunde", "--backend", "openai", "--base-url", url, "--no-picture"]
        assert cli.main(["ask", str(clip), "Which?", *flags]) == 2
    assert "refuses model 'tunde'" in capsys.readouterr().err
