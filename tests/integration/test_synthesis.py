"""`video-thinker synthesize` over real HTTP on loopback, with the toy teacher."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import signal
import socket
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import yaml

from tests.conftest import write_clip
from tests.synthesis_helpers import (
    NUM_CLIPS,
    CaptionTeacher,
    WatchedTeacher,
    World,
    chat_completion,
    contents,
    make_world,
    num_stored,
    read_jsonl,
    scripted_server,
    start,
    synthesize,
    write_jsonl,
)
from tests.tiny import RUN
from video_thinker.data.annotations import load_samples
from video_thinker.errors import ConfigError, TeacherError
from video_thinker.report.command import write_report
from video_thinker.synthesis.outputs import read_results
from video_thinker.synthesis.pipeline import WINDOW
from video_thinker.synthesis.prompts import prompt_version
from video_thinker.toyworld.teacher import ToyTeacher
from video_thinker.toyworld.teacher_server import Faults, TeacherServer
from video_thinker.toyworld.world import Clip, Span, write_mp4
from video_thinker.trace import format_violations
from video_thinker.training import sft

pytestmark = pytest.mark.integration

ERROR_RATE = 0.3
KEY = "sk-planted-0123456789abcdef"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("world") / "toy")


@pytest.fixture(scope="module")
def teacher(world) -> ToyTeacher:
    return ToyTeacher(world.clips, ERROR_RATE)


@pytest.fixture(scope="module")
def whole(world, teacher, tmp_path_factory) -> Path:
    """The output of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with TeacherServer(teacher) as server:
        assert synthesize(out, world.config(server.base_url)) == 0
    return out


def dead_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def statuses(out: Path) -> Counter:
    return Counter(row["status"] for row in read_results(out))


# What comes out


def test_items_have_traces_for_sft_and_none_for_grpo(whole, world):
    sft_items, grpo, test = (read_jsonl(whole / f"{name}.jsonl") for name in ("train_sft", "train_grpo", "test"))
    assert len(sft_items) >= 4 and len(test) >= 2
    assert [item["problem_id"] for item in sft_items] == [item["problem_id"] for item in grpo]
    assert all("process" not in item for item in grpo + test)
    ids = [item["problem_id"] for item in grpo + test]
    assert len(set(ids)) == len(ids)
    videos = [{item["path"] for item in side} for side in (grpo, test)]
    assert not videos[0] & videos[1]
    samples = load_samples(whole / "train_sft.jsonl")
    for item, sample in zip(sft_items, samples, strict=True):
        text = f"{sample.process}\n<answer>{sample.answer}</answer>"
        assert format_violations(text, sample.duration_s) == []
        clip = world.clips[sample.id]
        true = {(float(s.start_s), float(s.end_s), s.caption) for s in clip.spans}
        assert {(s.start_s, s.end_s, s.caption) for s in sample.segments} <= true
        origin = item["provenance"]
        assert origin["source"] in ("captions", "questions") and origin["annotation"] in world.clips
        assert origin["prompt_version"] == prompt_version()
        assert {origin[role] for role in ("trace_writer", "validator")} == {"toy-teacher"}
        assert ("teacher" in origin) == (origin["source"] == "captions")
        assert ("captioner" in origin) == (origin["source"] == "questions")
        assert 1 <= origin["trace_attempts"] <= 3 and origin["question_attempts"] <= 3


def test_the_card_agrees_with_the_files(whole):
    card = json.loads((whole / "card.json").read_text())
    files = {name: len(read_jsonl(whole / f"{name}.jsonl")) for name in ("train_sft", "test", "rejected", "duplicates")}
    totals = Counter()
    for row in card["sources"].values():
        totals.update(row)
    assert [totals[place] for place in ("train", "test", "rejected", "duplicate")] == list(files.values())
    assert card["num_items"] == files["train_sft"] + files["test"] and totals["unfinished"] == 0
    rows = list(read_results(whole))
    attempts = Counter((a["stage"], a["number"], a["reason"] is None) for row in rows for a in row["attempts"])
    for stage, table in card["acceptance"].items():
        for number, found in table.items():
            right, wrong = (attempts[stage, int(number), side] for side in (True, False))
            assert (found["written"], found["accepted"]) == (right + wrong, right)
    assert sum(used["requests"] for used in card["usage"].values()) == num_stored(whole)
    assert (whole / "acceptance.png").stat().st_size > 1000 and "| attempt |" in (whole / "card.md").read_text()


def test_letters_are_dealt_evenly_over_what_was_planned(whole, tmp_path, world):
    with TeacherServer(ToyTeacher(world.clips)) as server:  # without errors nothing is rejected
        assert synthesize(tmp_path / "out", world.config(server.base_url, max_options=4, questions_per_video=2)) == 0
    letters = defaultdict(Counter)
    for row in read_results(tmp_path / "out"):
        letters[row["source"]][row["gold"]] += 1
    assert set(letters["captions"].values()) == {2 * NUM_CLIPS // 4} and len(letters["captions"]) == 4


def test_written_questions_need_more_than_one_segment(whole):
    rows = [row for row in read_results(whole) if row["source"] == "captions"]
    reasons = [a["reason"] for row in rows for a in row["attempts"] if a["stage"] == "question" and a["reason"]]
    assert reasons, "the teacher wrote no bad question, so this test sees nothing"
    for row in rows:
        if row["status"] == "accepted":
            assert len(row["item"]["segments"]) == 2
            assert 4 <= len(row["item"]["options"]) <= 6


def test_a_rerun_asks_nothing_and_changes_nothing(world, teacher, tmp_path):
    out = tmp_path / "out"
    with TeacherServer(teacher) as server:
        config = world.config(server.base_url)
        assert synthesize(out, config) == 0
        before, num_tries = contents(out), server.log.tries.total()
        assert synthesize(out, config) == 0
        assert server.log.tries.total() == num_tries > 50
    assert contents(out) == before


@pytest.mark.parametrize("sees_video", [False, True])
def test_the_validator_sees_the_video_if_so_configured(world, tmp_path, sees_video):
    teacher = WatchedTeacher(world.clips)
    with TeacherServer(teacher) as server:
        config = world.config(server.base_url, validator_sees_video=sees_video, frames_per_segment=3)
        assert synthesize(tmp_path / "out", config, "frames_per_video=5") == 0
    by_stage = defaultdict(set)
    for request, num_images in teacher.images.items():
        by_stage[request.split("/")[1].split("_")[0]].add(num_images)
    assert by_stage == {"question": {0}, "check": {0}, "caption": {3}, "trace": {0}, "validate": {5 * sees_video}}


def test_what_curation_rejects_says_why(world, tmp_path):
    hopeless = ToyTeacher(world.clips, error_rate=1.0)
    with TeacherServer(hopeless) as server:
        assert synthesize(tmp_path / "out", world.config(server.base_url)) == 0
    rejected = read_jsonl(tmp_path / "out" / "rejected.jsonl")
    assert len(rejected) == 2 * NUM_CLIPS and not read_jsonl(tmp_path / "out" / "train_sft.jsonl")
    for row in rejected:
        assert len(row["attempts"]) == 3 and row["attempts"][-1]["reason"] in row["reason"]


def test_the_report_shows_the_traces(whole, tmp_path):
    page = write_report([whole], tmp_path / "report.html").read_text()
    data = json.loads(re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL).group(1))
    items = read_jsonl(whole / "train_sft.jsonl")
    assert data["entries"] == ["toy-teacher (out)"] and data["splits"] == ["traces of out"]
    assert [sample["id"] for sample in data["samples"]] == [item["problem_id"] for item in items]
    for sample, item in zip(data["samples"], items, strict=True):
        shown = sample["predictions"]["0"]
        assert shown["completion"].startswith(item["process"]) and shown["status"] == "correct"
        assert shown["miou"] >= 0.5 and not shown["violations"]
    assert len(data["media"]) == len({item["path"] for item in items}) and not any(m["error"] for m in data["media"])


# Servers that fail


@pytest.mark.parametrize("kind", ["429", "429_retry_after", "500", "timeout", "truncated_json"])
def test_failures_on_the_way_change_nothing(world, teacher, whole, tmp_path, kind):
    faults = Faults(rate=0.15, kinds=(kind,), delay_s=2.0)
    with TeacherServer(teacher, faults) as server:
        config = world.config(server.base_url, endpoint={"timeout_s": 1.5} if kind == "timeout" else {})
        assert synthesize(tmp_path / "out", config) == 0
        assert server.log.faults[kind] > 5
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.parametrize(("kind", "reason"), [("refusal", "refused"), ("token_limit", "cut off")])
def test_unusable_replies_are_asked_for_again(world, tmp_path, kind, reason):
    right = ToyTeacher(world.clips)
    with TeacherServer(right, Faults(rate=0.3, kinds=(kind,))) as server:
        assert synthesize(tmp_path / "again", world.config(server.base_url)) == 0
        assert synthesize(tmp_path / "never", world.config(server.base_url, max_unusable=0, max_attempts=1)) == 0
    assert statuses(tmp_path / "again") == {"accepted": 2 * NUM_CLIPS}
    rejected = read_jsonl(tmp_path / "never" / "rejected.jsonl")
    assert rejected and all(reason in row["reason"] for row in rejected)


@pytest.mark.parametrize("status", [408, 429, 503])
def test_the_wait_that_a_server_asks_for_is_kept(world, tmp_path, status):
    times = []

    def script(number, key, body):
        times.append(time.monotonic())
        return (status, {"error": "slow down"}, ("Retry-After", "0.7")) if number == 0 else (400, {"error": "stop"})

    with scripted_server(script) as base_url:
        config = world.config(base_url, concurrency=1, max_backoff_s=5.0)
        del config["sources"]["questions"]
        with pytest.raises(TeacherError, match="stop"):
            synthesize(tmp_path / "out", config)
    assert times[1] - times[0] >= 0.7


def test_requests_keep_to_the_rate(world, tmp_path):
    teacher = WatchedTeacher(world.clips)
    with TeacherServer(teacher) as server:
        config = world.config(server.base_url, endpoint={"requests_per_minute": 600})
        config["sources"] = {"captions": {**config["sources"]["captions"], "num_rows": 1}}
        assert synthesize(tmp_path / "out", config) == 0
    times = teacher.times[:-1]  # the last is the validator's, an endpoint of its own
    assert len(times) == 8 and times[-1] - times[1] >= 6 * 0.1 - 0.1


def test_a_server_that_is_away_leaves_samples_for_another_run(world, teacher, whole, tmp_path, caplog):
    out = tmp_path / "out"
    assert synthesize(out, world.config(dead_address(), max_retries=2)) == 1
    assert statuses(out) == {"unfinished": 2 * NUM_CLIPS} and not read_jsonl(out / "train_sft.jsonl")
    assert "12 samples are unfinished" in caplog.text and "run the same command again" in caplog.text
    with TeacherServer(teacher) as server:
        assert synthesize(out, world.config(server.base_url)) == 0
    assert contents(out) == contents(whole)


def test_a_run_stops_asking_when_too_many_samples_are_unfinished(world, tmp_path):
    config = world.config(dead_address(), max_retries=1, max_unfinished=2, concurrency=1)
    assert synthesize(tmp_path / "out", config) == 1
    reasons = [row["reason"] for row in read_results(tmp_path / "out")]
    assert sum("not begun" in reason for reason in reasons) >= 2 * NUM_CLIPS - (2 + WINDOW)


def test_a_wrong_key_stops_the_run_at_once(world, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    keys = []

    def script(number, key, body):
        keys.append(key)
        return 401, {"error": {"message": f"Incorrect API key provided: {key}"}}

    with scripted_server(script) as base_url, pytest.raises(TeacherError, match="check the endpoint's model, key") as e:
        synthesize(tmp_path / "out", world.config(base_url, concurrency=2))
    assert set(keys) == {f"Bearer {KEY}"} and len(keys) <= 2
    assert KEY not in str(e.value) and "[key]" in str(e.value)


def test_one_request_that_is_refused_by_its_status_rejects_its_sample_only(world, tmp_path, caplog):
    caplog.set_level("INFO")
    teacher = ToyTeacher({name: clip for name, clip in world.clips.items() if name != "question-3"})
    with TeacherServer(teacher) as server:  # which answers 400 for a sample it does not know
        assert synthesize(tmp_path / "out", world.config(server.base_url, concurrency=1)) == 0
    (rejected,) = read_jsonl(tmp_path / "out" / "rejected.jsonl")
    assert rejected["id"] == "question-3" and "refused" in rejected["reason"] and "no sample" in rejected["reason"]
    before = contents(tmp_path / "out")
    with TeacherServer(teacher) as server:  # what was refused is not sent again either
        caplog.clear()
        assert synthesize(tmp_path / "out", world.config(server.base_url, concurrency=1)) == 0
    assert "0 requests were sent" in caplog.text
    assert contents(tmp_path / "out") == before
    with TeacherServer(ToyTeacher({})) as server, pytest.raises(TeacherError, match="parameters"):
        synthesize(tmp_path / "none", world.config(server.base_url))


def test_the_same_rows_under_two_names_are_used_once(world, teacher, tmp_path):
    with TeacherServer(teacher) as server:
        config = world.config(server.base_url)
        name, source = next(iter(config["sources"].items()))
        config["sources"] = {name: source, "z_again": source}
        assert synthesize(tmp_path / "out", config) == 0
    ids = [row["id"] for row in read_results(tmp_path / "out")]
    assert len(ids) == len(set(ids)) == NUM_CLIPS
    dropped = [row for row in read_jsonl(tmp_path / "out" / "dropped.jsonl") if row["source"] == "z_again"]
    assert len(dropped) == NUM_CLIPS and "left out" in dropped[0]["reason"]


# Stopping and going on


@pytest.mark.parametrize("limit", ["max_tokens", "max_cost"])
def test_a_budget_stops_the_run_and_a_larger_one_continues_it(world, teacher, tmp_path, limit):
    prices = {"endpoint": {"price_input": 2.0, "price_output": 8.0}}
    with TeacherServer(teacher) as server:
        assert synthesize(tmp_path / "whole" / "out", world.config(server.base_url, **prices)) == 0
    card = json.loads((tmp_path / "whole" / "out" / "card.json").read_text())
    tokens = {role: used["prompt_tokens"] + used["completion_tokens"] for role, used in card["usage"].items()}
    total = card["cost"] if limit == "max_cost" else sum(tokens.values())
    part = total * 0.6 if limit == "max_cost" else int(total * 0.6)
    out = tmp_path / "parts" / "out"
    with TeacherServer(teacher) as server:
        config = world.config(server.base_url, concurrency=1, **prices)
        assert synthesize(out, config, f"{limit}={part}") == 1
        stopped = json.loads((out / "card.json").read_text())
        assert statuses(out)["accepted"] > 0 < statuses(out)["unfinished"]
        reasons = [row["reason"] for row in read_results(out) if row["status"] == "unfinished"]
        assert all(f"{limit}={part} is used up" in reason for reason in reasons)
        # Spent are at least the budget and at most the requests that were in flight more.
        used = stopped["usage"].values()
        spent = (
            stopped["cost"] if limit == "max_cost" else sum(u["prompt_tokens"] + u["completion_tokens"] for u in used)
        )
        assert part <= spent < part + 0.1 * total
        assert synthesize(out, config, f"{limit}={total}") == 0
        assert server.log.summary()["repeated"] == 0
    assert contents(out) == contents(tmp_path / "whole" / "out")


def test_kills_change_nothing_and_repeat_no_answered_request(world, teacher, whole, tmp_path):
    out, rng = tmp_path / "out", random.Random(5)
    with TeacherServer(teacher, Faults(latency_s=0.02)) as server:
        config = world.config(server.base_url, concurrency=4)
        total = num_stored(whole)
        for _ in range(5):
            process = start(out, config)
            target = min(server.log.answered.total() + rng.randrange(1, total // 6), total - 4)
            while server.log.answered.total() < target:
                assert process.poll() is None, "the run ended before it was killed"
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.1)  # the server finishes what was in flight
        answered, stored = server.log.answered.total(), num_stored(out)
        assert stored > 10 and answered - stored <= 5 * 4
        assert synthesize(out, config) == 0
        assert server.log.summary()["repeated"] <= answered - stored
        assert server.log.answered.total() == total + answered - stored
    assert contents(out) == contents(whole)


def test_a_folder_in_use_is_refused(world, teacher, tmp_path):
    out = tmp_path / "out"
    with TeacherServer(teacher, Faults(latency_s=0.2)) as server:
        config = world.config(server.base_url)
        process = start(out, config)
        while not server.log.tries:
            time.sleep(0.01)
        with pytest.raises(ConfigError, match=f"another run is working there .process {process.pid} on "):
            synthesize(out, config)
        process.kill()
        process.wait()


# The key


def test_the_key_is_in_no_file_and_in_no_log(world, tmp_path, monkeypatch, caplog, capfd):
    """The server echoes it wherever it can: in error bodies, replies, refusals and finish reasons."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TEACHER_KEY", KEY)
    echoes = Counter()

    def script(number, key, body):
        kind = ("500", "reply", "refusal", "finish", "400")[number % 5]
        echoes[kind] += KEY in key
        reply = chat_completion(f"Your key is {key}.")
        if kind == "refusal":
            reply = chat_completion("", refusal=f"I will not tell that your key is {key}.")
        elif kind == "finish":
            reply["choices"][0]["finish_reason"] = key
        return (int(kind), {"error": {"message": f"bad {key}", "code": key}}) if kind.isdigit() else (200, reply)

    with scripted_server(script) as base_url:
        config = world.config(base_url, endpoint={"api_key_env": "TEACHER_KEY"}, max_retries=1, concurrency=2)
        first = synthesize(tmp_path / "out", config)
    assert first == 1 and statuses(tmp_path / "out")["unfinished"] and min(echoes.values()) > 3
    assert "[key]" in (tmp_path / "out" / "results.jsonl").read_text()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"cache.db", "run.yaml", "results.jsonl", "card.md"} <= {path.name for path in files}
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path
    output = capfd.readouterr()
    assert caplog.records and KEY not in caplog.text and KEY not in output.out + output.err


# Videos that cannot be used


def test_short_and_broken_videos_are_dropped_and_listed(tmp_path):
    spans, colors = [], ("red", "green", "blue", "cyan", "purple")
    for i, color in enumerate(colors):
        spans.append(Span(4 * i, 4 * i + 4, color, "left"))
    long = Clip(tuple(spans), picture_seed=1)
    (tmp_path / "media").mkdir()
    write_mp4(long, tmp_path / "media" / "long.mp4")  # 80 frames
    short = Clip(tuple(Span(3 * i, 3 * i + 3, color, "top") for i, color in enumerate(colors)), picture_seed=2)
    write_mp4(short, tmp_path / "media" / "short.mp4")  # 60 frames
    (tmp_path / "media" / "broken.mp4").write_bytes((tmp_path / "media" / "long.mp4").read_bytes()[:700])
    clips = {"long": long, "short": short, "broken": long, "absent": long}
    rows = [
        {"id": name, "path": f"media/{name}.mp4", "segments": [
            {"start_s": s.start_s, "end_s": s.end_s, "caption": s.caption} for s in clip.spans]}
        for name, clip in clips.items()
    ]  # fmt: skip
    rows.append({**rows[0], "id": "no-caption", "segments": rows[0]["segments"][:1]})
    world = World(tmp_path, clips)
    write_jsonl(tmp_path / "captions.jsonl", rows)
    with TeacherServer(ToyTeacher(clips)) as server:
        config = world.config(server.base_url)
        del config["min_video_frames"], config["sources"]["questions"]
        assert synthesize(tmp_path / "out", config) == 0
    assert [row["id"] for row in read_results(tmp_path / "out")] == ["long"]
    dropped = {row["id"]: row for row in read_jsonl(tmp_path / "out" / "dropped.jsonl")}
    assert {name: row["kind"] for name, row in dropped.items()} == {
        "short": "video", "broken": "video", "absent": "video", "no-caption": "row"
    }  # fmt: skip
    assert "it has 60 frames, min_video_frames=64" in dropped["short"]["reason"]
    assert "broken.mp4" in dropped["broken"]["reason"] and "no such video" in dropped["absent"]["reason"]
    assert json.loads((tmp_path / "out" / "card.json").read_text())["dropped"] == {"captions": {"video": 3, "row": 1}}


def test_real_clips_are_captioned_from_frames_and_bad_ones_are_named(shared_dir, tmp_path):
    rows = json.loads((shared_dir / "annotations" / "real_clips.json").read_text())
    for row in rows:
        row["segments"] = [{**segment, "caption": ""} for segment in row["segments"]]
    late = [{"start_s": 1.0, "end_s": 4.0, "caption": ""}]
    rows.append({**rows[0], "problem_id": "bad", "path": "corrupted.mp4", "segments": late, "duration_s": None})
    rows.append({**rows[0], "problem_id": "tiny", "path": "unordered.mov", "segments": late, "duration_s": None})
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    with TeacherServer(CaptionTeacher()) as server:
        config = World(tmp_path, {}).config(server.base_url, curation="structure", min_video_frames=64)
        config.update(media_root=str(shared_dir / "videos"), sources={"real": {"source": "videos", "file": str(file)}})
        assert synthesize(tmp_path / "out", config) == 0
    results = {row["id"]: row for row in read_results(tmp_path / "out")}
    dropped = {row["id"]: row["reason"] for row in read_jsonl(tmp_path / "out" / "dropped.jsonl")}
    assert {name for name, row in results.items() if row["status"] == "accepted"} == {f"real-{i}" for i in range(1, 8)}
    segments = results["real-1"]["item"]["segments"]
    assert [segment["caption"] for segment in segments] == ["seen in 4 frames"] * 3
    assert "frames" in dropped["tiny"]
    assert "corrupted.mp4" in dropped.get("bad", "") or results["bad"]["reason"].startswith("video: ")


def test_real_activitynet_rows_become_items_that_sft_trains_on(shared_dir, tmp_path, tiny_model_dir):
    """The rows are real; their videos are not at hand, so clips of the same names and lengths stand in for them."""
    file = shared_dir / "annotations" / "activitynet_captions.json"
    rows = json.loads(file.read_text())
    (tmp_path / "media").mkdir()
    for number, (name, row) in enumerate(rows.items()):
        seconds = round(row["duration"]) + 1
        colors = [(number * 20 % 255, second * 3 % 255, 90) for second in range(seconds)]
        write_clip(tmp_path / "media" / f"{name}.mp4", colors, fps=2, size=(32, 32))
    with TeacherServer(CaptionTeacher()) as server:
        config = World(tmp_path, {}).config(server.base_url, min_video_frames=64, media_root=str(tmp_path))
        config["sources"] = {"anet": {"source": "activitynet_captions", "file": str(file), "videos": "media"}}
        assert synthesize(tmp_path / "out", config) == 0
    results = list(read_results(tmp_path / "out"))
    dropped = [row["id"] for row in read_jsonl(tmp_path / "out" / "dropped.jsonl") if row["kind"] != "note"]
    assert {row["id"] for row in results} | set(dropped) == set(rows)
    assert statuses(tmp_path / "out")["accepted"] >= 8
    for row in results:
        segments = [(s["start_s"], s["end_s"]) for s in row["item"]["segments"]]
        assert all(list(span) in rows[row["id"]]["timestamps"] for span in segments)
    training = {
        **RUN,
        "model_name_or_path": str(tiny_model_dir),
        "train_file": str(tmp_path / "out" / "train_sft.jsonl"),
        "media_root": str(tmp_path),
        "output_dir": str(tmp_path / "sft"),
        "num_frames": 4,
        "max_pixels": 64 * 64,
        "per_device_train_batch_size": 2,
        "max_steps": 2,
        "save_strategy": "no",
    }
    path = tmp_path / "sft.yaml"
    path.write_text(yaml.safe_dump(training))
    assert sft.main([str(path)]) == 0
    history = json.loads((tmp_path / "sft" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "loss" in entry] == [1, 2]
