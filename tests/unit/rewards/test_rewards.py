from __future__ import annotations

import asyncio
import dataclasses

import pytest

from video_thinker.errors import ConfigError, DataError
from video_thinker.rewards import REWARD_FUNCS, check_reward_weights, load_reward_funcs
from video_thinker.rewards.accuracy import accuracy_reward
from video_thinker.rewards.completions import completion_text
from video_thinker.rewards.finite import finite_reward, finite_rewards
from video_thinker.rewards.format import format_reward
from video_thinker.rewards.length import length_reward
from video_thinker.rewards.temporal_iou import temporal_iou_reward
from video_thinker.schema import Media, Segment, VideoSample
from video_thinker.scoring import score_completion

CHOICE = VideoSample(
    id="v",
    problem="?",
    problem_type="multiple choice",
    answer="B",
    options=("A. milk", "B. oil"),
    media=(Media("video", "v.mp4"),),
    segments=(Segment(0.0, 4.0), Segment(10.0, 14.0)),
)


def trace(answer="B", spans=("00:00-00:04", "00:10-00:14")):
    blocks = "".join(f"<time>{span}</time> <caption>c</caption> <think>t</think> " for span in spans)
    return f"I look. {blocks}So. <answer>{answer}</answer>"


def call(reward, texts, samples=CHOICE, **columns):
    """Call a reward as TRL does: keyword arguments, conversational completions, extra columns."""
    samples = [samples] * len(texts) if isinstance(samples, VideoSample) else samples
    return reward(
        prompts=[[{"role": "user", "content": "?"}]] * len(texts),
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        completion_ids=columns.pop("completion_ids", [[1, 2, 3]] * len(texts)),
        sample=samples,
        duration_s=columns.pop("duration_s", [20.0] * len(texts)),
        trainer_state=None,
        **columns,
    )


INPUTS = {
    "valid": trace(),
    "empty": "",
    "untagged": "I think it is oil because it shines",
    "untagged letter": "B",
    "repeated": trace() + trace(),
    "nested": f"<think>{trace()}</think>",
    "cut off": trace().replace("<answer>B</answer>", ""),
    "wrong": trace("A"),
    "mixed": trace().replace("<think>", "<Think>") + "<answer>A</answer> <answer>B</answer>",
}


@pytest.mark.parametrize(
    ("name", "accuracy", "format_", "iou"),
    [
        ("valid", 1.0, 1.0, 1.0),
        ("empty", 0.0, 0.0, 0.0),
        ("untagged", 1.0, 0.0, 0.0),
        ("untagged letter", 1.0, 0.0, 0.0),
        ("repeated", 1.0, 0.0, 1.0),
        ("nested", 1.0, 0.0, 1.0),
        ("cut off", 0.0, 0.0, 1.0),
        ("wrong", 0.0, 1.0, 1.0),
        ("mixed", 0.0, 0.0, 1.0),
    ],
)
def test_rewards_on_every_kind_of_input(name, accuracy, format_, iou):
    assert call(accuracy_reward, [INPUTS[name]]) == [accuracy]
    assert call(format_reward, [INPUTS[name]]) == [format_]
    assert call(temporal_iou_reward, [INPUTS[name]]) == [iou]
    assert call(length_reward, [INPUTS[name]], completion_ids=[[7] * 400]) == [accuracy]


@pytest.mark.parametrize("reward", REWARD_FUNCS.values(), ids=REWARD_FUNCS)
def test_rewards_give_one_value_in_the_unit_interval_per_completion(reward):
    values = call(reward, list(INPUTS.values()))
    assert len(values) == len(INPUTS)
    assert all(isinstance(value, float) and 0.0 <= value <= 1.0 for value in values)
    assert call(reward, []) == []


def test_a_batch_is_graded_by_each_samples_own_problem_type():
    number = dataclasses.replace(CHOICE, problem_type="numerical", answer="3", options=())
    text = dataclasses.replace(CHOICE, problem_type="free-form", answer="a red car", options=())
    regression = dataclasses.replace(CHOICE, problem_type="regression", answer="10", options=())
    span = dataclasses.replace(CHOICE, problem_type="grounding", answer="4.0-8.0", options=())
    texts = [trace("B"), trace("3"), trace("a red car"), trace("9"), trace("00:04-00:06"), trace("3")]
    samples = [CHOICE, number, text, regression, span, CHOICE]
    assert call(accuracy_reward, texts, samples) == [1.0, 1.0, 1.0, pytest.approx(0.9), 0.5, 0.0]
    assert call(accuracy_reward, texts[::-1], samples[::-1]) == [0.0, 0.5, pytest.approx(0.9), 1.0, 1.0, 1.0]


def test_an_unusable_gold_gives_none_not_zero():
    broken = dataclasses.replace(CHOICE, answer="E")
    empty = dataclasses.replace(CHOICE, answer="", problem_type="free-form", options=())
    point = dataclasses.replace(CHOICE, answer="4.0-4.0", problem_type="grounding", options=())
    samples = [CHOICE, broken, empty, point]
    assert call(accuracy_reward, [trace()] * 4, samples) == [1.0, None, None, None]
    assert call(length_reward, [trace()] * 4, samples, completion_ids=[[1] * 400] * 4) == [1.0, None, None, None]
    assert call(accuracy_reward, [""] * 4, samples) == [0.0, None, None, None]


def test_the_accuracy_reward_is_the_grade_of_the_evaluation():
    for text in INPUTS.values():
        assert call(accuracy_reward, [text]) == [score_completion(text, CHOICE).value]


def test_a_strict_accuracy_reward_pays_only_for_answers_in_the_format():
    texts = [trace(), "B", trace("A"), trace().replace("<think>t</think>", ""), "<answer>B</answer>"]
    assert call(accuracy_reward, texts) == [1.0, 1.0, 0.0, 1.0, 1.0]
    (strict,) = load_reward_funcs(["accuracy"], {"accuracy": {"strict": True}})
    assert call(strict, texts) == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_a_strict_accuracy_reward_uses_each_files_own_duration():
    (strict,) = load_reward_funcs(["accuracy"], {"accuracy": {"strict": True}})
    assert call(strict, [trace()] * 3, duration_s=[20.0, 5.0, None]) == [1.0, 0.0, 1.0]
    stated = dataclasses.replace(CHOICE, duration_s=5.0)  # by the row; the file is what counts
    assert call(strict, [trace()] * 3, stated, duration_s=[20.0, 5.0, None]) == [1.0, 0.0, 0.0]
    assert call(accuracy_reward, [trace()] * 2, duration_s=[5.0, None]) == [1.0, 1.0]
    assert strict(completions=[trace()], sample=[CHOICE]) == [1.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_reward_that_is_not_finite_is_an_error_with_the_sample(bad):
    def odd_reward(completions, **columns):
        return [1.0, None, bad]

    async def late_reward(completions, **columns):
        return [1.0, None, bad]

    samples = [dataclasses.replace(CHOICE, id=f"v{number}", location=f"f.jsonl:{number}") for number in range(3)]
    with pytest.raises(DataError, match=r"f\.jsonl:2: completion 2 of sample 'v2': the reward odd_reward is"):
        finite_reward(odd_reward)(completions=[""] * 3, sample=samples)
    with pytest.raises(DataError, match=r"completion 2: the reward odd_reward is"):
        finite_reward(odd_reward)(completions=[""] * 3)
    with pytest.raises(DataError, match=r"sample 'v2': the reward late_reward is"):
        asyncio.run(finite_reward(late_reward)(completions=[""] * 3, sample=samples))


def test_finite_rewards_pass_through_under_their_own_names():
    (length,) = load_reward_funcs(["length"], {"length": {"min_tokens": 2, "max_tokens": 3}})
    wrapped = finite_rewards([accuracy_reward, length, "some/reward-model"])
    assert [getattr(reward, "__name__", reward) for reward in wrapped] == [
        "accuracy_reward",
        "length_reward",
        "some/reward-model",
    ]
    assert call(wrapped[0], [trace(), trace("A")]) == [1.0, 0.0]
    assert call(wrapped[1], [trace()] * 2, completion_ids=[[1] * 3, [1] * 4]) == [1.0, 0.0]
    (only,) = finite_rewards(accuracy_reward)
    assert call(only, [trace()], dataclasses.replace(CHOICE, answer="E")) == [None]


def test_format_uses_each_videos_own_duration():
    assert call(format_reward, [trace()] * 3, duration_s=[20.0, 5.0, None]) == [1.0, 0.0, 1.0]
    assert format_reward(completions=[trace()]) == [1.0]


def test_format_does_not_apply_to_still_images():
    still = dataclasses.replace(CHOICE, media=(Media("image", "v.png"),))
    assert call(format_reward, [trace(), trace(), ""], [CHOICE, still, still]) == [1.0, None, None]


def test_temporal_iou_is_the_mean_over_gold_of_the_best_span():
    assert call(temporal_iou_reward, [trace(spans=["00:00-00:02"])]) == [pytest.approx((0.5 + 0.0) / 2)]
    without = dataclasses.replace(CHOICE, segments=())
    assert call(temporal_iou_reward, [trace(), ""], [without, CHOICE]) == [None, 0.0]


@pytest.mark.parametrize(("num_tokens", "value"), [(319, 0.0), (320, 1.0), (512, 1.0), (513, 0.0), (0, 0.0)])
def test_length_band_of_video_r1(num_tokens, value):
    assert call(length_reward, [trace()], completion_ids=[[5] * num_tokens]) == [value]
    assert call(length_reward, [trace("A")], completion_ids=[[5] * num_tokens]) == [0.0]


def test_length_with_partial_credit():
    close = dataclasses.replace(CHOICE, problem_type="regression", answer="10", options=())
    ids = {"completion_ids": [[5] * 400]}
    assert call(length_reward, [trace("9")], close, **ids) == [0.0]
    assert call(length_reward, [trace("9")], close, min_accuracy=0.8, **ids) == [1.0]


@pytest.mark.parametrize("reward", REWARD_FUNCS.values(), ids=REWARD_FUNCS)
def test_columns_of_another_length_are_refused(reward):
    with pytest.raises(ValueError, match="zip"):
        reward(
            completions=[trace()] * 2,
            completion_ids=[[1]],
            sample=[CHOICE],
            duration_s=[None],
            prompts=[],
            trainer_state=None,
        )


def test_completion_text():
    assert completion_text("plain") == "plain"
    assert completion_text([{"role": "assistant", "content": "a"}]) == "a"
    assert (
        completion_text(
            [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
        )
        == "ab"
    )
    turns = [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "b"},
    ]
    assert completion_text(turns) == "a\nb"
    assert completion_text([]) == ""


def test_load_reward_funcs_keeps_the_order():
    assert load_reward_funcs(["format", "accuracy"]) == [format_reward, accuracy_reward]
    assert [reward.__name__ for reward in load_reward_funcs(list(REWARD_FUNCS))] == [
        "accuracy_reward",
        "format_reward",
        "temporal_iou_reward",
        "length_reward",
    ]


def test_load_reward_funcs_sets_parameters():
    (reward,) = load_reward_funcs(["length"], {"length": {"min_tokens": 2, "max_tokens": 3}})
    assert reward.__name__ == "length_reward"
    assert call(reward, [trace()] * 2, completion_ids=[[1] * 3, [1] * 4]) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("names", "parameters", "message"),
    [
        (
            ["accuracy", "lenght"],
            None,
            "'lenght' is not a reward; the rewards are accuracy, format, temporal_iou, length",
        ),
        (["accuracy", "accuracy"], None, "twice"),
        (["length"], {"lenght": {}}, "'lenght' is not a reward"),
        (["accuracy"], {"length": {"min_tokens": 1}}, "not in reward_funcs"),
        (["length"], {"length": {"min_token": 1}}, "its parameters are min_tokens, max_tokens, min_accuracy"),
        (["length"], {"length": {"sample": 1}}, "unknown parameters"),
        (["format"], {"format": {"weight": 2}}, "it has no parameters"),
        (["accuracy"], {"accuracy": {"weight": 2}}, "its parameters are strict"),
    ],
)
def test_load_reward_funcs_refuses(names, parameters, message):
    with pytest.raises(ConfigError, match=message):
        load_reward_funcs(names, parameters)


def test_weights_that_are_not_one_for_each_reward_are_refused_with_both_lengths():
    message = r"reward_weights=\[1.0\] has 1 weights, but reward_funcs=\['accuracy', 'format'\] has 2 rewards"
    with pytest.raises(ConfigError, match=message):
        check_reward_weights([1.0], ["accuracy", "format"])
    check_reward_weights([1.0, 0.5], ["accuracy", "format"])
    check_reward_weights(None, ["accuracy", "format"])
    with pytest.raises(ConfigError, match="all are 0, so nothing would be learnt"):
        check_reward_weights([0.0, 0.0], ["accuracy", "format"])
