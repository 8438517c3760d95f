"""Opens the backend that a config asks for: a model in this process, or one behind a server."""

from __future__ import annotations

from video_thinker.config import ModelArguments, VideoArguments
from video_thinker.generation import backend as backends
from video_thinker.generation.arguments import AnswerArguments
from video_thinker.generation.backend import Backend
from video_thinker.generation.engine import Sampling
from video_thinker.models.loading import load_encoder


def open_backend(
    model_args: ModelArguments,
    video_args: VideoArguments,
    args: AnswerArguments,
    generation: Sampling,
    *,
    answered: bool = False,
) -> Backend:
    """Make the backend that a config asks for: a model in this process, or one behind a server.

    Args:
        model_args: The model, or its name on the server.
        video_args: Sampling and prompt.
        args: Who answers.
        generation: How completions are drawn.
        answered: Whether the server has answered this run before.

    Raises:
        ConfigError: there is no such model, or an option is unknown or does not fit the model.
    """
    if args.backend == "openai":
        from video_thinker.generation.openai import OpenAIBackend

        return OpenAIBackend.connect(model_args, video_args, args, generation, answered=answered)
    return backends.load_backend(model_args, load_encoder(model_args.model_name_or_path, video_args), generation, args)
