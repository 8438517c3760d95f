import pytest

from video_thinker.evaluation.thoughts import TeacherWords, thoughts

TRACES = [
    "I look for red. <time>00:01-00:02</time> <caption>red on the left</caption> <think>now I look right after it"
    "</think> <time>00:02-00:03</time> <caption>blue at the top</caption> <think>this is what comes right after red"
    "</think> So blue.",
    "I look at the end. <time>00:05-00:06</time> <caption>red at the top</caption> <think>this is what comes last"
    "</think> So red.",
]
TEACHER = TeacherWords(TRACES)


def completion(*thinks: str) -> str:
    blocks = (
        f"<time>00:0{i}-00:0{i + 1}</time> <caption>red</caption> <think>{t}</think>" for i, t in enumerate(thinks)
    )
    return f"I look. {' '.join(blocks)} <answer>red</answer>"


@pytest.mark.parametrize(
    "thought",
    [
        "this is what comes last",
        "This is what comes LAST",
        "now I look right after red",  # pairs of both of the teacher's thoughts, as the teacher might have put them
        " this is\nwhat comes last ",
    ],
)
def test_what_the_teacher_could_have_written_is_known(thought):
    assert TEACHER.knows(thought)


@pytest.mark.parametrize(
    "thought",
    [
        "nowowow what comes last",
        "this is what comes first",  # a word of nobody
        "look look look",
        "this is is what comes last",
        "this is what comes",  # no thought ends so
        "comes last",  # none begins so
        "last comes what is this",
        "this is what comes last this is what comes last",
        "this is what comes last!",
        "thisiswhatcomeslast",
        "red on the left",  # words of captions are not words of thoughts
        "",
        "\ufffd\ufffd",
    ],
)
def test_gibberish_is_not_known(thought):
    assert not TEACHER.knows(thought)


def test_the_share_is_over_thoughts_not_completions():
    good, bad = "this is what comes last", "nowowow what comes last"
    assert TEACHER.share_known([completion(good), completion(good, bad, good)]) == pytest.approx(3 / 4)
    assert TEACHER.share_known([completion(good)] * 5) == 1.0
    assert TEACHER.share_known([completion(bad)] * 5) == 0.0


def test_no_thought_is_no_figure_and_an_empty_one_is_not_known():
    assert TEACHER.share_known(["blue", "", "<answer>blue</answer>"]) is None
    assert TEACHER.share_known([completion("")]) == 0.0


def test_thoughts_are_read_leniently_too():
    assert thoughts("<time>00:01-00:02</time> <caption>red <THINK>this is what <answer>red</answer>") == [
        "this is what"
    ]


def test_the_words_come_from_the_traces_given():
    other = TeacherWords(["<time>0-1</time> <caption>c</caption> <think>nowowow what comes last</think>"])
    assert other.knows("nowowow what comes last") and not other.knows("this is what comes last")
