from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from video_thinker.datasets import BENCHMARKS, SOURCES
from video_thinker.datasets.annotated import CaptionedVideo
from video_thinker.datasets.base import Note
from video_thinker.datasets.conversion import convert_file
from video_thinker.errors import DataError
from video_thinker.schema import Segment, VideoSample

FIXTURES = Path(__file__).parents[2] / "fixtures" / "benchmarks"
ACTIVITYNET = {
    "v_a": {"duration": 20.0, "timestamps": [[5, 25.0], [0.5, 4]], "sentences": [" She dances.", "She stands. "]},
}
YOUCOOK2 = {
    "database": {
        "soup": {
            "subset": "training",
            "duration": 60.5,
            "recipe_type": "113",
            "annotations": [
                {"id": 0, "segment": [10, 22], "sentence": "pour water"},
                {"id": 1, "segment": [30, 55], "sentence": "add noodles"},
            ],
        }
    }
}
TUTORIALVQA = [
    {"video_id": "t1", "question": "How to crop?", "answer_start": "00:10", "answer_end": "00:20"},
    {"video_id": "t2", "question": "How to paint?", "answer_start": 1, "answer_end": 2.5},
    {"video_id": "t1", "question": "How do I save?", "answer_start": 30, "answer_end": 41},
    {"video_id": "t1", "question": "How can I crop?", "answer_start": 10, "answer_end": 20},
]
STAR = [
    {
        "question_id": "Sequence_T1_2",
        "question": "What was closed?",
        "video_id": "6H78U",
        "start": 11.1,
        "end": 19.6,
        "answer": "the box.",
        "choices": [{"choice_id": 0, "choice": "The bag."}, {"choice_id": 1, "choice": "The box."}],
    }
]
SCALELONG = [
    {
        "vid": [
            {
                "data_id": 0,
                "question": "How many?",
                "question_type": "Counting",
                "answer": "five",
                "answer_location": "0:01-0:04; 1:00:10-1:00:12",
                "distractors": ["two", "three", "four"],
            }
        ]
    }
]
LVBENCH = [
    {
        "key": "Cm73",
        "type": "cartoon",
        "qa": [
            {
                "uid": "55",
                "question": "What year?\n(A) 1636\n(B) 1366",
                "answer": "b",
                "question_type": ["reading", "events"],
                "time_reference": "00:15-00:19",
            }
        ],
    }
]
VIDEOS = [
    {"path": "kitchen/031.mp4", "segments": [{"start_s": 4, "end_s": 9.5, "caption": "Milk is poured in."}]},
    {
        "problem_id": "q1",
        "problem": "What is poured?",
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": ["A. milk", "B. oil"],
        "solution": "<answer>A</answer>",
        "path": "a.mp4",
        "segments": [{"start_s": 1, "end_s": 2}],
    },
]
RAW = {
    "activitynet_captions": ACTIVITYNET,
    "youcook2": YOUCOOK2,
    "tutorialvqa": TUTORIALVQA,
    "star": STAR,
    "scalelong": SCALELONG,
    "lvbench": LVBENCH,
    "videos": VIDEOS,
}


def read(tmp_path, source, raw):
    path = tmp_path / f"{source}.json"
    path.write_text(json.dumps(raw))
    return list(SOURCES[source](path))


def kinds(rows):
    return Counter(type(row).__name__ for row in rows)


def test_every_source_has_a_raw_row_here():
    assert RAW.keys() == SOURCES.keys()


def test_activitynet_orders_segments_and_cuts_them_at_the_end(tmp_path):
    note, video = read(tmp_path, "activitynet_captions", ACTIVITYNET)
    assert isinstance(note, Note) and "5-25 s goes beyond the video, 20 s" in note.message
    assert (video.id, video.path, video.data_source, video.duration_s) == ("v_a", "v_a.mp4", "activitynet", 20.0)
    assert video.segments == (Segment(0.5, 4.0, "She stands."), Segment(5.0, 20.0, "She dances."))


def test_youcook2_gives_steps(tmp_path):
    (video,) = read(tmp_path, "youcook2", YOUCOOK2)
    assert (video.path, video.category, video.duration_s) == ("soup.mp4", "113", 60.5)
    assert [segment.caption for segment in video.segments] == ["pour water", "add noodles"]


def test_tutorialvqa_joins_the_questions_of_a_video(tmp_path):
    rows = read(tmp_path, "tutorialvqa", TUTORIALVQA)
    assert kinds(rows) == {"Note": 1, "CaptionedVideo": 2}
    video = rows[1]
    assert video.segments == (Segment(10.0, 20.0, "Shows: How to crop?"), Segment(30.0, 41.0, "Shows: How do I save?"))


def test_star_options_are_bare_and_the_answer_is_one_of_them(tmp_path):
    note, sample = read(tmp_path, "star", STAR)
    assert note.kind == "answer spelt differently"
    assert (sample.options, sample.answer) == (("The bag.", "The box."), "The box.")
    assert (sample.category, sample.segments) == ("Sequence", (Segment(11.1, 19.6),))


def test_an_empty_option_is_none_without_its_letter(tmp_path):
    question = {**SCALELONG[0]["vid"][0], "options": {"A": "two", "B": "", "C": "five"}, "answer": "C"}
    *_, sample = read(tmp_path, "scalelong", [{"vid": [question]}])
    assert (sample.options, sample.answer) == (("two", "five"), "five")
    *_, error = read(tmp_path, "scalelong", [{"vid": [{**question, "answer": "B"}]}])
    assert isinstance(error, DataError) and "option B, which is empty" in str(error)


def test_scalelong_has_several_segments(tmp_path):
    (sample,) = read(tmp_path, "scalelong", SCALELONG)
    assert sample.id == "vid-0" and sorted(sample.options) == ["five", "four", "three", "two"]
    assert sample.answer == "five"
    assert sample.segments == (Segment(1.0, 4.0), Segment(3610.0, 3612.0))


def test_lvbench_keeps_its_letters(tmp_path):
    (sample,) = read(tmp_path, "lvbench", LVBENCH)
    assert (sample.problem, sample.options, sample.answer) == ("What year?", ("A. 1636", "B. 1366"), "B")
    assert (sample.category, sample.segments) == ("reading, events", (Segment(15.0, 19.0),))


def test_own_videos_come_with_captions_or_with_questions(tmp_path):
    video, sample = read(tmp_path, "videos", VIDEOS)
    assert isinstance(video, CaptionedVideo) and video.id == "kitchen/031"
    assert isinstance(sample, VideoSample) and sample.segments == (Segment(1.0, 2.0),)


REQUIRED = {
    "activitynet_captions": ("timestamps", "sentences"),
    "youcook2": ("annotations",),
    "tutorialvqa": ("video_id", "question", "answer_start", "answer_end"),
    "star": ("question", "video_id", "answer", "choices"),
    "scalelong": ("question", "answer", "distractors"),
    "lvbench": ("question", "answer"),
    "videos": ("path", "segments"),
}
NOTED = {  # what a row can do without: its id is made from its place, a question without times gets no segments
    "star": ("question_id", "start", "end"),
    "scalelong": ("data_id", "answer_location"),
    "lvbench": ("uid", "time_reference"),
}


def innermost(source, raw):
    """The row of a raw file whose fields are required."""
    return {
        "activitynet_captions": lambda: raw["v_a"],
        "youcook2": lambda: raw["database"]["soup"],
        "scalelong": lambda: raw[0]["vid"][0],
        "lvbench": lambda: raw[0]["qa"][0],
    }.get(source, lambda: raw[0])()


@pytest.mark.parametrize(("source", "field"), [(s, f) for s, fields in REQUIRED.items() for f in fields])
def test_a_missing_field_is_named_with_its_place(tmp_path, source, field):
    raw = json.loads(json.dumps(RAW[source]))
    del innermost(source, raw)[field]
    errors = [row for row in read(tmp_path, source, raw) if isinstance(row, DataError)]
    assert len(errors) == 1
    assert f"{source}.json" in str(errors[0]) and field in str(errors[0])


@pytest.mark.parametrize(("source", "field"), [(s, f) for s, fields in NOTED.items() for f in fields])
def test_a_row_without_id_or_times_is_kept_with_a_note(tmp_path, source, field):
    raw = json.loads(json.dumps(RAW[source]))
    del innermost(source, raw)[field]
    *notes, sample = read(tmp_path, source, raw)
    assert isinstance(sample, VideoSample) and any(field in note.message for note in notes)
    assert bool(sample.segments) == field.endswith("id")


def test_lengths_that_a_file_states_are_no_news_to_the_synthesis(tmp_path):
    raw = json.loads(json.dumps(RAW["activitynet_captions"]))
    raw["v_a"]["duration"] = -1
    (video,) = read(tmp_path, "activitynet_captions", raw)
    assert video.duration_s is None and len(video.segments) == 2


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        ("activitynet_captions", {"sentences": ["one"]}, "2 timestamps and 1 sentences"),
        ("star", {"answer": "The door."}, "0 of the options"),
        ("lvbench", {"answer": "Z"}, "one of the options' letters A, B"),
        ("videos", {"problem": "What?"}, "problem_id"),
    ],
)
def test_a_wrong_field_is_an_error_in_the_rows_place(tmp_path, source, change, message):
    raw = json.loads(json.dumps(RAW[source]))
    innermost(source, raw).update(change)
    rows = read(tmp_path, source, raw)
    assert message in next(str(row) for row in rows if isinstance(row, DataError))


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        ("activitynet_captions", {"timestamps": [[9, 5], [0, 1]]}, "9-5 s starts after its end"),
        ("star", {"choices": [{"choice": "The box."}, {"choice": "the box."}]}, "A and B are both"),
        ("scalelong", {"answer_location": "somewhere"}, "no time range"),
        ("lvbench", {"question": "What year?"}, "no options can be told apart"),
        ("lvbench", {"question": "(A) 1\n(B) 2"}, "no options can be told apart"),
        ("lvbench", {"time_reference": "soon"}, "no time range"),
    ],
)
def test_what_is_odd_about_a_row_is_noted_before_it(tmp_path, source, change, message):
    raw = json.loads(json.dumps(RAW[source]))
    innermost(source, raw).update(change)
    *notes, annotation = read(tmp_path, source, raw)
    assert isinstance(annotation, CaptionedVideo | VideoSample)
    assert any(message in note.message for note in notes)


@pytest.mark.parametrize(("source", "name"), [(s, s) for s in SOURCES if s in BENCHMARKS])
def test_prepare_and_synthesize_read_the_same(tmp_path, source, name):
    path = next(path for path in FIXTURES.iterdir() if path.stem == name)
    prepared = convert_file(BENCHMARKS[name], path).samples
    for annotation in SOURCES[source](path):
        if isinstance(annotation, VideoSample):
            (same,) = [sample for sample in prepared if sample.id == annotation.id]
            assert (annotation.segments, annotation.media, annotation.problem) == (
                same.segments,
                same.media,
                same.problem,
            )
            bare = [option.partition(". ")[2] for option in same.options]
            assert list(annotation.options) == (list(same.options) if source == "lvbench" else bare)
        elif isinstance(annotation, CaptionedVideo):
            (same,) = [sample for sample in prepared if sample.id == f"{annotation.id}-captioning"]
            assert (sorted(annotation.segments, key=str), annotation.duration_s) == (
                sorted(same.segments, key=str),
                same.duration_s,
            )


def test_a_question_on_several_videos_or_without_segments_is_refused(tmp_path):
    rows = read(tmp_path, "videos", [{**VIDEOS[1], "segments": None}])
    assert "gold segments" in str(rows[0])


def test_a_point_in_time_is_left_out_with_a_note(tmp_path):
    raw = {"v_a": {**ACTIVITYNET["v_a"], "timestamps": [[5, 5], [0.5, 4]]}}
    note, video = read(tmp_path, "activitynet_captions", raw)
    assert "point in time" in note.message and len(video.segments) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "JSON"), ("[1]", "a row is a JSON object"), ("{}", "no annotations among the fields")],
)
def test_a_file_that_is_no_object_of_videos_is_refused(tmp_path, content, message):
    path = tmp_path / "raw.json"
    path.write_text(content)
    (error,) = SOURCES["youcook2"](path)
    assert isinstance(error, DataError) and message in str(error)
    with pytest.raises(DataError, match="no such file"):
        list(SOURCES["activitynet_captions"](tmp_path / "nowhere.json"))


def test_real_activitynet_rows_convert(shared_dir):
    rows = list(SOURCES["activitynet_captions"](shared_dir / "annotations" / "activitynet_captions.json"))
    videos = [row for row in rows if isinstance(row, CaptionedVideo)]
    assert len(videos) == 10 and not [row for row in rows if isinstance(row, DataError)]
    assert all(segment.caption and segment.end_s <= video.duration_s for video in videos for segment in video.segments)


def test_real_items_are_read_as_questions(shared_dir):
    rows = list(SOURCES["videos"](shared_dir / "annotations" / "real_clips.json"))
    assert kinds(rows) == {"VideoSample": 7}
