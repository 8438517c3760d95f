from __future__ import annotations

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.conftest import make_item, write_items
from tests.report_helpers import LOST, RIGHT, UGLY, prediction, write_eval_run, write_example, write_training_run
from video_thinker import cli
from video_thinker.errors import ConfigError, DataError
from video_thinker.evaluation.metrics import grade
from video_thinker.evaluation.scored import score_runs
from video_thinker.report.command import parse_items, write_report
from video_thinker.report.curves import MAX_POINTS, make_line, make_panels
from video_thinker.report.samples import axis_duration, choose_samples, describe_prediction
from video_thinker.report.strips import Strip, make_strip
from video_thinker.runs.reading import TrainingRun, load_items, make_labels, read_predictions, read_runs
from video_thinker.schema import Media, Segment, VideoSample


def sample(**fields) -> VideoSample:
    known = {"options": ("A. red", "B. blue"), "media": (Media("video", "a.mp4"),)}
    return VideoSample("q", "?", "multiple choice", "A", **{**known, **fields})


@pytest.fixture(scope="module")
def example(media_root, tmp_path_factory):
    """The folder, its runs, and the page about all of them."""
    folder = tmp_path_factory.mktemp("example")
    runs = write_example(folder, media_root)
    out = write_report(runs, folder / "new" / "report.html", title="<Report> & more")
    return folder, runs, out.read_text()


def island(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL).group(1))


# ---- runs ----


def test_labels_are_as_short_as_they_can_be(tmp_path):
    assert make_labels([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert make_labels([tmp_path / "x" / "eval", tmp_path / "y" / "eval"]) == ["x/eval", "y/eval"]
    assert make_labels([]) == []
    with pytest.raises(ConfigError, match="given twice"):
        make_labels([tmp_path / "a", tmp_path / "b" / ".." / "a"])


def test_an_evaluation_and_a_training_of_one_name_do_not_get_in_each_others_way(tmp_path):
    items_file = write_items(tmp_path / "items.jsonl", [make_item("q0")])
    write_eval_run(tmp_path / "eval" / "sft", items_file, {"id": [prediction("q0", RIGHT)]})
    write_training_run(tmp_path / "sft", [{"step": 1, "loss": 2.0}])
    evaluations, trainings = read_runs([tmp_path / "sft", tmp_path / "eval" / "sft"])
    assert [run.label for run in [*evaluations, *trainings]] == ["sft", "sft"]


def test_an_unfinished_training_is_read_from_its_last_checkpoint(tmp_path):
    for step in (900, 1000):
        write_training_run(tmp_path / "sft" / f"checkpoint-{step}", [{"step": step, "loss": 1.0}])
    (_, trainings) = read_runs([tmp_path / "sft"])
    assert trainings[0].history[0]["step"] == 1000


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="neither predictions"):
        read_runs([tmp_path])
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "id.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"no manifest\.json"):
        read_runs([tmp_path])


def test_a_run_that_is_being_written_is_read_and_left_as_it_is(tmp_path, caplog):
    path = tmp_path / "id.jsonl"
    rows = [{"problem_id": "q0", "completion": "old"}, {"problem_id": "q0", "completion": "new", "from_tomorrow": 1}]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"problem_id": "q1", "compl'
    path.write_text(text)
    predictions = read_predictions(path)
    assert {name: one.completion for name, one in predictions.items()} == {"q0": "new"}
    assert "half-written" in caplog.text
    assert path.read_text() == text


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"completion": "no id"}', ""])
def test_a_damaged_row_is_named(tmp_path, line):
    path = tmp_path / "id.jsonl"
    path.write_text(f'{{"problem_id": "q0"}}\n{line}\n')
    with pytest.raises(DataError, match=r"id\.jsonl:2: not a prediction"):
        read_predictions(path)


def test_items_must_be_those_that_were_evaluated(tmp_path):
    items_file = write_items(tmp_path / "items.jsonl", [make_item("q0")])
    runs, _ = read_runs([write_eval_run(tmp_path / "one", items_file, {"id": [prediction("q0", RIGHT)]})])
    moved = items_file.rename(tmp_path / "moved.jsonl")
    with pytest.raises(ConfigError, match=r"no such file.*--items id=FILE"):
        load_items(runs, {})
    assert [one.id for one in load_items(runs, {"id": moved})["id"]] == ["q0"]
    with pytest.raises(ConfigError, match=r"no RUN has such a split; there are id"):
        load_items(runs, {"ood": moved})
    write_items(moved, [make_item("q0", problem="another?")])
    with pytest.raises(ConfigError, match="has changed since"):
        load_items(runs, {"id": moved})


def test_runs_on_other_items_under_one_name_are_refused(tmp_path):
    folders = []
    for name in ("one", "two"):
        items_file = write_items(tmp_path / f"{name}.jsonl", [make_item("q0", problem=name)])
        folders.append(write_eval_run(tmp_path / "eval" / name, items_file, {"id": [prediction("q0", RIGHT)]}))
    with pytest.raises(ConfigError, match="give them a report each"):
        load_items(read_runs(folders)[0], {})


# ---- results ----


def test_stale_figures_are_replaced_and_said_to_be(tmp_path):
    items_file = write_items(tmp_path / "items.jsonl", [make_item("q0"), make_item("q1")])
    folder = write_eval_run(tmp_path / "one", items_file, {"id": [prediction("q0", RIGHT)]})
    runs, _ = read_runs([folder])
    assert score_runs(runs, load_items(runs, {}))[0].stale == ""
    with (folder / "predictions" / "id.jsonl").open("a") as file:
        file.write(json.dumps({"problem_id": "q1", "completion": LOST}) + "\n")
    runs, _ = read_runs([folder])
    (result,) = score_runs(runs, load_items(runs, {}))
    assert "accuracy is 1.0, the predictions give 0.5" in result.stale
    assert result.figures["accuracy"] == 0.5


def test_a_prediction_without_an_item_is_refused(tmp_path):
    items_file = write_items(tmp_path / "items.jsonl", [make_item("q0")])
    folder = write_eval_run(tmp_path / "one", items_file, {"id": [prediction("q0", RIGHT)]})
    (folder / "predictions" / "id.jsonl").write_text('{"problem_id": "other", "completion": ""}\n')
    runs, _ = read_runs([folder])
    with pytest.raises(DataError, match="'other'"):
        score_runs(runs, load_items(runs, {}))


# ---- samples ----


def test_samples_are_chosen_evenly(tmp_path):
    samples = [sample(location=str(i)) for i in range(10)]
    (shown,) = choose_samples({"id": samples}, {"id": tmp_path}, 4)
    assert [one.location for one in shown.samples] == ["0", "2", "5", "7"] and shown.total == 10
    (shown,) = choose_samples({"id": samples}, {"id": tmp_path}, 100)
    assert shown.samples == samples


def test_the_time_axis_is_as_long_as_the_file_else_as_long_as_anyone_knows():
    gold = (Segment(1.0, 9.0),)
    given = sample(duration_s=6.0, segments=gold)
    graded = [grade(prediction("q", RIGHT, duration_s=5.0), given)]
    assert axis_duration(given, graded, [Strip("a", duration_s=7.0)]) == 7.0
    assert axis_duration(given, graded, [Strip("a", error="gone")]) == 5.0
    assert axis_duration(given, [], [Strip("a", error="gone")]) == 6.0
    assert axis_duration(sample(segments=gold), [], [Strip("a", error="gone")]) == 9.0
    assert axis_duration(sample(), [], [Strip("a", error="gone")]) is None
    assert axis_duration(sample(media=(Media("image", "a.png"),), duration_s=6.0), [], [Strip("a")]) is None
    assert axis_duration(sample(media=()), [], []) is None


def test_a_prediction_says_where_its_moments_are_and_how_they_meet_the_gold():
    text = "<time>00:00-00:02</time> <time>00:01-00:03</time> <caption>c</caption> <time>00:08-00:09</time> B."
    given = sample(segments=(Segment(0.0, 2.0), Segment(2.0, 4.0)))
    described = describe_prediction(grade(prediction("q", text), given), 4.0)
    assert [moment["row"] for moment in described["moments"]] == [0, 1, None]
    assert [moment["iou"] for moment in described["moments"]] == [1.0, pytest.approx(1 / 3), 0.0]
    assert described["miou"] == pytest.approx((1 + 1 / 3) / 2)
    assert described["violations"] != []


@pytest.mark.parametrize(
    ("text", "segments", "lost"),
    [
        (RIGHT, (Segment(3.0, 4.0),), False),
        (LOST, (Segment(3.0, 4.0),), True),
        ("<answer>A</answer>", (Segment(3.0, 4.0),), True),
        (LOST, (), False),
        (None, (Segment(3.0, 4.0),), False),
    ],
    ids=["kept", "elsewhere", "no segment", "no gold", "failed"],
)
def test_lost_grounding_is_to_miss_the_gold_segments(text, segments, lost):
    made = prediction("q", text or "", error=None if text else "unreadable")
    assert describe_prediction(grade(made, sample(segments=segments)), 4.0)["lost"] is lost


@pytest.mark.parametrize(
    ("answer", "choice"), [("B", 1), ("blue", 1), ("(a)", 0), ("F", None), ("green", None), ("", None)]
)
def test_the_option_that_was_meant_is_marked(answer, choice):
    described = describe_prediction(grade(prediction("q", f"<answer>{answer}</answer>"), sample()), 4.0)
    assert described["choice"] == choice


# ---- strips ----


def test_a_strip_shows_frames_at_their_own_times(media_root):
    strip = make_strip(Media("video", "a.mp4"), media_root, 8)
    assert (strip.num_frames, strip.aspect, strip.duration_s, strip.error) == (8, 1.0, 4.0, "")
    content = base64.b64decode(strip.image.removeprefix("data:image/jpeg;base64,"))
    picture = np.asarray(Image.open(io.BytesIO(content)), dtype=int)
    height, width, _ = picture.shape
    cells = picture[height * 3 // 4, width // 16 :: width // 8]  # the lower half of a frame has the color of its second
    seconds = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10)]
    assert [int(np.abs(cell - seconds).sum(axis=1).argmin()) for cell in cells] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(content) < 20_000


def test_a_strip_of_an_image_and_of_a_file_that_cannot_be_read(media_root):
    still = make_strip(Media("image", "still.png"), media_root, 8)
    assert (still.num_frames, still.duration_s) == (1, None) and still.image
    for name in ("broken.mp4", "missing.mp4"):
        strip = make_strip(Media("video", name), media_root, 8)
        assert name in strip.error and (strip.image, strip.num_frames) == ("", 0)


def test_a_strip_has_no_more_frames_than_asked_for(media_root):
    assert make_strip(Media("video", "a.mp4"), media_root, 4).num_frames == 4


# ---- curves ----


def test_what_a_log_has_is_drawn(tmp_path):
    sft = make_panels(TrainingRun(tmp_path, "sft", [{"step": 1, "loss": 2.0}, {"step": 2, "train_loss": 1.0}]))
    assert [panel["title"] for panel in sft["panels"]] == ["Loss"]
    rows = [{"step": 1, "loss": 0.0, "reward": 1.0, "rewards/format_reward/mean": 0.5, "rewards/format_reward/std": 1}]
    grpo = make_panels(TrainingRun(tmp_path, "grpo", rows))
    assert [panel["title"] for panel in grpo["panels"]] == ["Reward", "Rewards"]
    assert [line["label"] for line in grpo["panels"][1]["lines"]] == ["format"]


def test_values_that_are_not_finite_leave_a_curve_and_are_counted():
    history = [{"step": i, "kl": value} for i, value in enumerate([1.0, float("nan"), 3.0, float("inf")])]
    line = make_line(history, "kl", "KL")
    assert (line["steps"], line["values"], line["left_out"]) == ([0, 2], [1.0, 3.0], 2)


def test_long_logs_are_thinned_to_their_last_step():
    line = make_line([{"step": i, "kl": float(i)} for i in range(10_001)], "kl", "KL")
    assert len(line["steps"]) <= MAX_POINTS + 1 and line["steps"][-1] == 10_000


# ---- the page ----


def test_text_never_becomes_markup(example):
    _, _, html = example
    assert UGLY in [p["completion"] for s in island(html)["samples"] for p in s["predictions"].values()]
    assert "window.owned" in html and "<script>window" not in html and "<img" not in html and "<!--" not in html
    assert len(re.findall("<script", html)) == 2
    assert "<title>&lt;Report&gt; &amp; more</title>" in html


def test_only_the_script_of_the_page_may_run(example):
    _, _, html = example
    script = html[html.rindex("<script>") + len("<script>") : html.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"media-src 'self' file:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert f"default-src 'none'; img-src data:; {policy}" in html


def test_the_page_names_no_other_place(example):
    _, _, html = example
    places = set(re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s)>]+)""", html))
    assert {place for place in places if not place.startswith(("#", "data:", "${", "x", "URL."))} == set()
    assert set(re.findall(r"https?://[^\s\"']+", html)) == {"http://www.w3.org/2000/svg"}


def test_notes_say_what_a_reader_must_know(example, tmp_path):
    folder, runs, html = example
    notes = html[html.index('class="notes"') : html.index('id="overview"')]
    assert "differ in more than their model: fps." in notes and "1 of 5 media files could not be read" in notes
    short = write_report(runs[:1], tmp_path / "short.html", max_samples=3).read_text()
    assert "3 of 7 samples are shown" in short and len(island(short)["samples"]) == 3


def test_frames_are_stored_once_for_all_questions_on_a_video(example):
    data = island(example[2])
    assert len(data["media"]) == 5 and len(data["samples"]) == 7
    assert data["samples"][0]["media"] == data["samples"][1]["media"]


def test_run_folders_are_only_read(media_root, tmp_path):
    runs = write_example(tmp_path, media_root)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    out = write_report(runs, tmp_path / "report.html")
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after.keys() - before.keys() == {out}
    assert {path: after[path] for path in before} == before


def test_half_of_a_surrogate_pair_does_not_stop_the_report(tmp_path):
    items_file = write_items(tmp_path / "items.jsonl", [make_item("q0")])
    run = write_eval_run(tmp_path / "one", items_file, {"id": []})
    row = json.dumps({"problem_id": "q0", "completion": "half \ud83d <answer>D</answer>"})
    (run / "predictions" / "id.jsonl").write_text(row + "\n")
    html = write_report([run], tmp_path / "report.html").read_text()
    assert island(html)["samples"][0]["predictions"]["0"]["completion"].startswith("half \ud83d")


def test_the_command(media_root, tmp_path, capsys):
    runs = write_example(tmp_path, media_root)
    out = tmp_path / "report.html"
    arguments = [*map(str, runs), "--out", str(out), "--items", f"id={tmp_path / 'items.jsonl'}"]
    assert cli.main(["report", *arguments, "--media-root", str(media_root), "--frames-per-sample", "4"]) == 0
    assert {strip["num_frames"] for strip in island(out.read_text())["media"]} == {4, 1, 0}
    assert cli.main(["report", *arguments, "--frames-per-sample", "1"]) == 2
    assert "must be a whole number of at least 2" in capsys.readouterr().err


def test_items_options():
    assert {name: str(path) for name, path in parse_items(["id=a=b.json"]).items()} == {"id": "a=b.json"}
    for text in ("id", "=a.json", "id="):
        with pytest.raises(ConfigError, match="write SPLIT=FILE"):
            parse_items([text])


def test_an_answer_outside_of_the_options_is_told_from_one_that_cannot_be_read(tmp_path):
    texts = {"q0": "<answer>purple</answer>", "q1": "I cannot see", "q2": "<answer></answer>", "q3": RIGHT}
    items_file = write_items(tmp_path / "items.jsonl", [make_item(name) for name in texts])
    run = write_eval_run(tmp_path / "one", items_file, {"id": [prediction(*pair) for pair in texts.items()]})
    samples = island(write_report([run], tmp_path / "report.html").read_text())["samples"]
    told = {sample["id"]: sample["predictions"]["0"]["unread"] for sample in samples}
    assert told == {"q0": "no option", "q1": "unreadable", "q2": "none", "q3": None}


def test_only_the_items_that_were_asked_are_shown(tmp_path):
    """`num_samples` takes the first items of a split."""
    items_file = write_items(tmp_path / "items.jsonl", [make_item(f"q{i}") for i in range(9)])
    runs = [
        write_eval_run(tmp_path / name, items_file, {"id": [prediction(f"q{i}", RIGHT) for i in range(count)]})
        for name, count in (("one", 2), ("two", 3))
    ]
    for run, count in zip(runs, (2, 3), strict=True):
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["splits"]["id"]["num_samples"] = count
        (run / "manifest.json").write_text(json.dumps(manifest))
    html = write_report(runs, tmp_path / "report.html").read_text()
    assert [sample["id"] for sample in island(html)["samples"]] == ["q0", "q1", "q2"]


def test_clips_are_where_the_one_path_rule_finds_them(media_root, tmp_path):
    paths = {"q0": str(media_root / "a.mp4"), "q1": "/b.mp4", "q2": "gone.mp4"}
    items_file = write_items(tmp_path / "items.jsonl", [make_item(name, path) for name, path in paths.items()])
    rows = [prediction(name, RIGHT) for name in paths]
    run = write_eval_run(tmp_path / "one", items_file, {"id": rows}, media_root=media_root)
    out = write_report([run], tmp_path / "deep" / "report.html")
    media = {one["path"]: one for one in island(out.read_text())["media"]}
    for path, name in ((paths["q0"], "a.mp4"), ("/b.mp4", "b.mp4")):
        assert media[path]["image"] and (out.parent / media[path]["url"]).resolve() == (media_root / name).resolve()
    assert media["gone.mp4"]["url"] is None and "gone.mp4" in media["gone.mp4"]["error"]


def test_the_first_reason_of_failures_is_shown(example):
    assert "first: 1 item failed; the first, q3: broken.mp4: cannot decode" in example[2]
