"""MVBench (arXiv 2311.17005): 20 tasks on short videos of other data sets.

One row of an official file, a JSON list for each task (action_sequence.json, …); give one file, or the folder:

    {"video": "ZS9XR.mp4", "question": "What happened after he opened the book?", "candidates": ["He sat", "He ate"],
     "answer": "He ate", "start": 11.1, "end": 19.6}

The category is the task, the file's name. Some tasks have the part of the video that is asked about, `start` to `end`
(or `accurate_start` to `accurate_end`) in seconds: it is the gold segment, and the video is shown whole, where the
official evaluation shows that part only. `video` is relative to the task's folder of the official videos, see
`FOLDERS`; episodic_reasoning has folders of pictures there, which are no video files.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from video_thinker.datasets.base import Benchmark, Item, Record, as_text
from video_thinker.datasets.files import in_folder
from video_thinker.datasets.items import letter_of_text, multiple_choice, read_options, segment

FOLDERS = {
    "action_antonym": "ssv2_video",
    "action_count": "perception/videos",
    "action_localization": "sta/sta_video",
    "action_prediction": "star/Charades_v1_480",
    "action_sequence": "star/Charades_v1_480",
    "character_order": "perception/videos",
    "counterfactual_inference": "clevrer/video_validation",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "fine_grained_pose": "nturgbd",
    "moving_attribute": "clevrer/video_validation",
    "moving_count": "clevrer/video_validation",
    "moving_direction": "clevrer/video_validation",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "scene_transition": "scene_qa/video",
    "state_change": "perception/videos",
    "unexpected_action": "FunQA_test/test",
}


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    options = read_options(record, record.fields.get("candidates"), "candidates")
    task = as_text(record.fields.get("task_type")) or record.text("file_name").removeprefix("json_")
    video = record.video("video")
    if task not in FOLDERS:
        record.note("unknown task", f"{task!r} is no official task (they are file names): no folder of videos is known")
    elif not PurePosixPath(video).suffix:
        record.note("folder of pictures", f"video={video!r} is a folder of pictures in the official data")
    return multiple_choice(
        options,
        letter_of_text(record, "answer", options),
        problem_id=f"{task}-{record.fields['file_row']}",
        problem=record.text("question"),
        path=f"{FOLDERS[task]}/{video}" if task in FOLDERS else video,
        data_source="mvbench",
        category=task,
        segments=_segments(record),
    )


def _segments(record: Record) -> list[Item]:
    """Return the part of the video that is asked about, if the row has one; most tasks have none."""
    for start, end in (("accurate_start", "accurate_end"), ("start", "end")):
        if record.fields.get(start) is not None and record.fields.get(end) is not None:
            return [segment(record.fields[start], record.fields[end])]
    return []


BENCHMARK = Benchmark(
    convert,
    "the JSON list of a task (action_sequence.json …), or the folder of all",
    read=in_folder(),
    remarks=("Where a row has a start and an end, the official evaluation shows that part of the video only.",),
)
