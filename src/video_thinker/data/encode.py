"""Samples -> model inputs. The only place where pixels, timestamps and tokens meet.

Shapes: B batch, L sequence, V videos and I images of the batch, N patches of all of them, D values per patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import ProcessorMixin, Qwen3VLProcessor
from transformers.video_utils import VideoMetadata

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S, VideoArguments
from video_thinker.data.cache import FrameCache
from video_thinker.data.conversation import Message, build_messages
from video_thinker.data.media import MediaLoader, media_options, video_sampling
from video_thinker.data.texts import SpecialTokens, check_texts
from video_thinker.data.video import SampledVideo, VideoSampling
from video_thinker.errors import DataError
from video_thinker.models.positions import PositionRule
from video_thinker.schema import VideoSample

MEDIA_FIELDS = ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts", "pixel_values", "image_grid_thw")
"""Model inputs that are indexed by video, image or patch, not by row: they are concatenated, never padded."""

POSITION_FIELDS = ("video_grid_thw", "second_per_grid_ts", "image_grid_thw")
"""Of these, what the positions of vision tokens are computed from."""

FEATURE_FIELDS = ("video_features", "image_features", "video_deepstack", "image_deepstack")
"""What a frozen vision tower makes of the pixels; see `models/vision.py`."""

PIXEL_FIELDS = frozenset({"pixel_values_videos", "pixel_values"})


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt as the model sees it.

    `input_ids` and `mm_token_type_ids` (0 text, 1 image, 2 video) have the prompt's length P, `position_ids` is (3, P):
    every forward uses these positions (`models/positions.py`), and no other. `media` holds the fields of
    `MEDIA_FIELDS` this prompt has: `pixel_values_videos` (N, D), `video_grid_thw` (V, 3), `pixel_values` (N, D),
    `image_grid_thw` (I, 3), and for Qwen2.5-VL `second_per_grid_ts` (V,); Qwen3-VL reads the times as text in
    `input_ids`. `duration_s` is that of the only video, else `None`.
    """

    input_ids: list[int]
    mm_token_type_ids: list[int]
    position_ids: torch.Tensor
    media: dict[str, torch.Tensor] = field(default_factory=dict)
    duration_s: float | None = None

    def on_device(self, device: torch.device) -> EncodedPrompt:
        """Bring the media to a device.

        (Not called `to`: accelerate's data loader would call that for each row, and copy what rows of a prompt share.)
        """
        return replace(self, media={name: value.to(device) for name, value in self.media.items()})


def merge_media(parts: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Concatenate the media of several rows in row order; fields that no row has are left out."""
    names = [name for name in (*MEDIA_FIELDS, *FEATURE_FIELDS) if any(name in part for part in parts)]
    return {name: torch.cat([part[name] for part in parts if name in part]) for name in names}


def blank_media(media: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Replace all pixels by the processor's mean colour; grids and times stay, so only what is seen changes.

    Features of the real pixels are left out.
    """
    kept = {name: value for name, value in media.items() if name not in FEATURE_FIELDS}
    return {name: torch.zeros_like(value) if name in PIXEL_FIELDS else value for name, value in kept.items()}


def blank_prompt(prompt: EncodedPrompt) -> EncodedPrompt:
    """Replace the pixels of a prompt, as `blank_media` does."""
    return replace(prompt, media=blank_media(prompt.media))


def render_prompt(processor: ProcessorMixin, messages: list[Message]) -> str:
    """Write messages as text, with the generation prompt and one placeholder for each video and image.

    Qwen3-VL's processor writes the time of every frame pair and vision tokens around each pair, `<0.3 seconds>
    <|vision_start|>…<|vision_end|>`. The processor it was released with (transformers 4.57) puts all that in the place
    of the vision tokens that the chat template writes around a video; transformers 5 puts it between them. Here those
    of the template are taken out, so that prompts have the released form.
    """
    text: str = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if isinstance(processor, Qwen3VLProcessor):
        video = processor.video_token
        text = text.replace(f"{processor.vision_start_token}{video}{processor.vision_end_token}", video)
    return text


def frame_metadata(video: SampledVideo) -> VideoMetadata:
    """Tell a processor when the frames it gets were taken; without that it assumes 24 fps.

    The frames given are the whole video as far as it is concerned, so its rate is the sampled one. Qwen2.5-VL takes
    that rate (`second_per_grid_ts` = 2 / `sample_fps`). Qwen3-VL writes a time before each frame pair, the mean of
    number / rate over the pair: with (fractional) numbers of time x rate that is the stored time, however irregular.
    """
    return VideoMetadata(
        total_num_frames=len(video.timestamps_s),
        fps=video.sample_fps,
        duration=video.duration_s,
        frames_indices=[time_s * video.sample_fps for time_s in video.timestamps_s],  # type: ignore[misc]  # see above
        video_backend=video.backend,
    )


class SampleEncoder(MediaLoader):
    """Turns samples into model inputs, with one processor and one way of sampling videos.

    Args:
        processor: The model's processor (`AutoProcessor`).
        sampling: Frames and pixels to take of each video.
        positions: How the checkpoint numbers its tokens (`models.loading.load_positions`).
        prompt_style: A key of `PROMPT_STYLES`.
        media_root: Folder that the samples' paths are relative to.
        backend: Video decoder; "auto" is the reader around PyAV (`data/pyav_reader.py`).
        cache_mib: Size of the in-memory frame cache in MiB; 0 turns it off.
        frame_cache: Frames on disk, behind the one in memory.
        timeout_s: Seconds that decoding one file may take; `None` for no limit.

    Raises:
        ConfigError: the video backend is not there, or `max_pixels` does not hold one vision token of the model.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        sampling: VideoSampling,
        positions: PositionRule,
        *,
        prompt_style: str = "trace",
        media_root: str | Path | None = None,
        backend: str = "auto",
        cache_mib: int = 256,
        frame_cache: FrameCache | None = None,
        timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S,
    ) -> None:
        """See the class."""
        video_processor = processor.video_processor
        super().__init__(
            sampling,
            resize_factor=video_processor.patch_size * video_processor.merge_size,
            media_root=media_root,
            backend=backend,
            cache_mib=cache_mib,
            frame_cache=frame_cache,
            timeout_s=timeout_s,
        )
        self.processor = processor
        self.positions = positions
        self.prompt_style = prompt_style
        self.special_tokens = SpecialTokens.of_tokenizer(processor.tokenizer)

    def encode_prompt(self, sample: VideoSample, max_length: int | None = None) -> EncodedPrompt:
        """Render, tokenize and preprocess one prompt.

        Args:
            sample: Whose prompt.
            max_length: Longest prompt allowed, in tokens; `None` for no limit.

        Raises:
            DataError: a text holds a special token of the model, or the prompt is longer than `max_length`.
            DecodeError: a media file cannot be used.
        """
        prompt = self.encode_frames(sample, *self.load_media(sample))
        if max_length is not None and len(prompt.input_ids) > max_length:
            raise DataError(
                f"{sample.location}: the prompt has {len(prompt.input_ids)} tokens, more than "
                f"max_prompt_length={max_length} (sample {sample.id!r}); nothing is truncated: raise "
                "max_prompt_length, or lower max_frames / max_pixels."
            )
        return prompt

    def encode_frames(
        self, sample: VideoSample, videos: Sequence[SampledVideo], images: Sequence[torch.Tensor] = ()
    ) -> EncodedPrompt:
        """Like `encode_prompt`, with frames the caller brings (the evaluation's blank and shuffled controls)."""
        check_texts(sample, self.special_tokens)
        messages = build_messages(sample, self.prompt_style, self.media_root)
        text = render_prompt(self.processor, messages)
        features = self.processor(text=[text], return_tensors="pt", **self._media_kwargs(videos, images))
        media = {name: torch.as_tensor(features[name]) for name in MEDIA_FIELDS if name in features}
        token_types = features["mm_token_type_ids"][0].tolist()
        return EncodedPrompt(
            input_ids=features["input_ids"][0].tolist(),
            mm_token_type_ids=token_types,
            position_ids=self.positions.prompt_positions(
                token_types, **{name: media[name] for name in POSITION_FIELDS if name in media}
            ),
            media=media,
            duration_s=videos[0].duration_s if len(videos) == 1 else None,
        )

    def _media_kwargs(self, videos: Sequence[SampledVideo], images: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Arguments that hand finished frames and their real times to the processor."""
        kwargs: dict[str, Any] = {}
        if videos:
            kwargs["videos"] = [video.frames for video in videos]
            kwargs["videos_kwargs"] = {
                "video_metadata": [frame_metadata(video) for video in videos],
                "do_sample_frames": False,
                "do_resize": False,
                "cap_pixels_per_frame": False,
            }
        if images:
            kwargs["images"] = list(images)
            kwargs["images_kwargs"] = {"do_resize": False}
        return kwargs


def build_encoder(processor: ProcessorMixin, args: VideoArguments, positions: PositionRule) -> SampleEncoder:
    """Make the encoder a config asks for; `models.loading.load_encoder` makes it of a checkpoint.

    Raises:
        ConfigError: the sampling cannot be met, or not by this model, or the video backend is not there.
    """
    return SampleEncoder(
        processor,
        video_sampling(args),
        positions,
        prompt_style=args.prompt_style,
        **media_options(args),
    )
