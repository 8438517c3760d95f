from __future__ import annotations

import dataclasses

import pytest

from video_thinker.errors import ConfigError
from video_thinker.prompts import PROMPT_STYLES, grounding_question, render_question, render_system
from video_thinker.schema import Media, VideoSample

CHOICE = VideoSample(
    id="v",
    problem="What is poured?",
    problem_type="multiple choice",
    answer="B",
    options=("A. milk", "B. oil"),
    media=(Media("video", "v.mp4"),),
    process="SECRET trace",
    data_source="SECRET source",
)


def test_the_styles():
    assert set(PROMPT_STYLES) == {"trace", "trace_concise", "plain"}


@pytest.mark.parametrize("style", ["trace", "trace_concise", "plain"])
def test_question_then_options_one_per_line_then_reminder(style):
    lines = render_question(CHOICE, style).split("\n")
    assert lines[:3] == ["What is poured?", "A. milk", "B. oil"]
    assert len(lines) == 4
    assert "letter" in lines[3]


@pytest.mark.parametrize("style", ["trace", "trace_concise", "plain"])
@pytest.mark.parametrize(
    ("problem_type", "options", "word"),
    [
        ("multiple choice", ("A. milk", "B. oil"), "letter"),
        ("multiple choice", ("milk", "oil"), "option"),
        ("multiple choice", (), "letter"),  # options written into the question
        ("numerical", (), "number"),
        ("regression", (), "number"),
        ("grounding", (), "span"),
    ],
)
def test_the_reminder_asks_for_the_kind_of_answer(style, problem_type, options, word):
    sample = dataclasses.replace(CHOICE, problem_type=problem_type, options=options)
    assert word in render_question(sample, style).split("\n")[-1].replace("the right option in", "")


@pytest.mark.parametrize("problem_type", ["OCR", "free-form"])
def test_text_answers(problem_type):
    sample = dataclasses.replace(CHOICE, problem_type=problem_type, options=())
    assert render_question(sample, "plain") == "What is poured?\nAnswer briefly."
    assert "short text" in render_question(sample, "trace")


def test_the_questions_made_from_captions():
    assert grounding_question(" a {red} ball rolls. ") == 'When in the video does this happen: "a {red} ball rolls."?'
    sample = dataclasses.replace(CHOICE, problem_type="grounding", options=(), problem=grounding_question("x"))
    assert render_question(sample, "plain").endswith("\nAnswer with the time span MM:SS-MM:SS.")


def test_only_trace_has_a_system_message_and_it_names_every_tag():
    assert render_system("plain") is None
    assert render_system("trace_concise") is None
    system = render_system("trace")
    for tag in (
        "<time>",
        "</time>",
        "<caption>",
        "</caption>",
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "MM:SS-MM:SS",
    ):
        assert tag in system


def test_plain_speaks_of_no_tag():
    assert "<" not in render_question(CHOICE, "plain")


def test_still_images_are_not_asked_for_times():
    still = dataclasses.replace(CHOICE, media=(Media("image", "v.png"),))
    mixed = dataclasses.replace(CHOICE, media=(Media("image", "v.png"), Media("video", "v.mp4")))
    for style in ("trace", "trace_concise"):
        assert "<time>" not in render_question(still, style)
        assert render_question(mixed, style) == render_question(CHOICE, style)
        assert render_question(still, style) != render_question(CHOICE, style)


@pytest.mark.parametrize("style", ["trace", "trace_concise", "plain"])
def test_neither_gold_nor_trace_nor_source_leaks(style):
    sample = dataclasses.replace(CHOICE, problem_type="free-form", options=(), answer="GOLD")
    assert "GOLD" not in render_question(sample, style)
    assert "SECRET" not in render_question(sample, style)


def test_braces_in_a_question_are_text():
    sample = dataclasses.replace(CHOICE, problem="Is it {answer} or {}?")
    assert render_question(sample, "trace").startswith("Is it {answer} or {}?\n")


@pytest.mark.parametrize("render", [lambda: render_system("fancy"), lambda: render_question(CHOICE, "fancy")])
def test_an_unknown_style_lists_the_styles(render):
    with pytest.raises(ConfigError, match="'fancy' is not a prompt style; the styles are trace, trace_concise, plain"):
        render()
