"""The errors a user can act on.

Every message says where, what was found, the rule, and the fix. All are `ValueError`s: the input is at fault, not the
program. Nothing in the project catches them to go on with something else; skipping is an option of its own
(`on_decode_error: skip`), counted and listed.
"""


class VideoThinkerError(ValueError):
    """Base of all errors of this project.

    A data worker of PyTorch sends its error as the text of a traceback, from which the error is made again. Only the
    message is kept, so that an error reads the same from wherever it comes.
    """

    def __init__(self, *args: object) -> None:
        """See the class."""
        super().__init__(*(self._own_words(arg) if isinstance(arg, str) else arg for arg in args))

    @classmethod
    def _own_words(cls, text: str) -> str:
        if not text.startswith(f"Caught {cls.__name__} in "):
            return text
        _, _, words = text.rpartition(f"\n{cls.__module__}.{cls.__qualname__}: ")
        return words.strip() or text


class DataError(VideoThinkerError):
    """An annotation row cannot be used: a field is missing, malformed, or contradicts another one."""


class DecodeError(VideoThinkerError):
    """A media file is unreadable, empty, or too short for the sampling that was asked for."""


class TimesChangedError(DecodeError):
    """A video's frames turned out to be at other times than its packets say. Opened again, it has the right ones."""


class NotEnoughMemoryError(VideoThinkerError, MemoryError):
    """The machine, a GPU or a data worker has too little memory. No file, sample or answer is at fault."""


class MediaMemoryError(NotEnoughMemoryError):
    """There is not enough memory to decode a media file. The file need not be broken, so `skip` does not skip it."""


class ConfigError(VideoThinkerError):
    """A config file or a command-line override is wrong: unknown key, impossible combination, missing file."""


class BlindModelError(VideoThinkerError):
    """The model's log-probabilities do not depend on the video: it would be trained blind."""


class EngineError(VideoThinkerError):
    """A rollout engine hangs, gives back something else than was asked for, or disagrees with the trainer."""


class CheckpointError(VideoThinkerError):
    """A checkpoint could not be written, is not one that a run can continue from, or its weights cannot be used."""


class NonFiniteError(VideoThinkerError):
    """A loss, gradient, log-probability or weight became NaN or infinite: the training has diverged."""


class WriteError(VideoThinkerError):
    """A file cannot be written: the disk is full, the folder is gone or read-only, the name is too long."""


class ServerError(VideoThinkerError):
    """A server cannot be asked: it is away, refuses everything, or says nonsense. What was answered is kept."""


class TeacherError(ServerError):
    """A model behind an API cannot be asked: its server is away or refuses, or the budget is used up."""
