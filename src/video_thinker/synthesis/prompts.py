"""All that is said to teachers, captioners and validators, and the only prompt text of the synthesis.

A request is a system message, which is one of the texts below, and a user message, which is one JSON object with the
case, followed by labelled frames where the model is to see some. So the instructions are the same for every sample of a
stage, which servers that cache prompts reward, and captions with quotes or line breaks in them cannot be mistaken for
instructions.
"""

from __future__ import annotations

import hashlib

from video_thinker.prompts import frame_label

WRITE_QUESTION = """\
You write multiple-choice questions that test whether somebody has followed a whole video.

You get a JSON object with the video's duration, its captioned segments and `num_options`. Write one question that can \
only be answered by combining at least two segments: what happens before or after something, what changes, what leads \
to what, how often, in which order. Nobody may be able to answer it from a single segment, from the wording of the \
options or from general knowledge.

- Exactly one option is right. The others are wrong for this video, plausible, of the same kind and about as long; \
take them from other moments of the video where you can.
- Speak of the video, never of captions, segments, their numbers or times.
- If `question_number` is above 1, other questions are being written for this video: ask about other moments.

Reply with one JSON object and nothing else:
{"question": "…", "answer": "the right option", "distractors": ["…"], "segments": [numbers of the segments needed]}
`distractors` holds `num_options` - 1 texts. Options carry no letters."""

ANSWER_FROM_NOTES = """\
You judge what follows from notes about a video. You get a JSON object with the video's duration, a question, its \
lettered options, and notes: time spans with what is seen there. If frames of the video are attached, a note that they \
contradict does not count.

Use the notes only. Do not guess, and do not use how likely an option is without them. Reply with one JSON object and \
nothing else:
{"letters": ["B"]}
`letters` holds every option that the notes show to be right, and is empty if they do not decide the question."""

WRITE_CAPTION = """\
You describe moments of a video. You get frames of one time span in order, each with its time, and a JSON object with \
a question about the video and its right answer. Say in one or two sentences what is visible in these frames that \
matters for the answer: who or what, doing what, where, in which order.

Describe only what the frames show. Do not mention the question, the options, letters, frames or times. If the frames \
do not show what the answer claims, describe what they do show. Reply with one JSON object and nothing else:
{"caption": "…"}"""

WRITE_TRACE = """\
You write down how a careful viewer works out the answer to a question about a video. You get a JSON object with the \
question, its options, the right answer, and the segments that decide it, each with its time and a caption.

Write in the first person and in the present, as somebody who is watching and does not know the answer yet. Open with \
a sentence on what to look for. Then, for each segment that is given, in the order in which the viewer needs it:
<time>MM:SS-MM:SS</time> <caption>what is visible there</caption> <think>what it means for the question</think>
Copy each time exactly as it is given. Captions may be reworded, but say nothing that the given one does not. Between \
the blocks ordinary sentences may stand; where a first impression needs correcting, let the viewer notice it. After \
the last block draw the conclusion in a sentence or two that names the answer in words. Do not mention option letters, \
segment numbers, or that captions or the answer were given. End with the content of `answer`, unchanged, in this tag:
<answer>…</answer>

Reply with this text and nothing else."""

TEXTS = (WRITE_QUESTION, ANSWER_FROM_NOTES, WRITE_CAPTION, WRITE_TRACE)


def prompt_version() -> str:
    """Name the wording of all prompts, so that an item says what it was made with."""
    return hashlib.sha256("\n".join((*TEXTS, frame_label(""))).encode()).hexdigest()[:12]
