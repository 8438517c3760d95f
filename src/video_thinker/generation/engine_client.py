"""The engine `server`: samples with an engine in a process of its own, over HTTP (`video-thinker serve-engine`).

The same tensors go in as into an engine of this process, and the same random numbers: torch's state travels with a
request and back. So an engine behind a server gives the completions that it would give here. A request that is asked
again, because the server was killed, gives them again.

Each sync of weights has a name, and each request names the weights it wants. A server that was started anew has others;
then they are sent again. On several ranks, each asks for its own completions, and rank 0 sends the weights.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from transformers import ProcessorMixin

from video_thinker.data.encode import EncodedPrompt
from video_thinker.errors import EngineError, VideoThinkerError
from video_thinker.generation.engine import Sampled, Sampling
from video_thinker.generation.engine_http import EngineClient
from video_thinker.generation.served import StaleWeightsError, describe_model
from video_thinker.generation.wire import Asked, BrokenMessageError, pack, pack_asked, read_sampled
from video_thinker.models.adapters import whole_weights
from video_thinker.models.loading import vision_token_ids

logger = logging.getLogger(__name__)
T = TypeVar("T")
Weights = Callable[[], Iterable[tuple[str, torch.Tensor]]]
"""Gives whole weights under the names of a checkpoint, as often as they are asked for."""

PART_BYTES = 64 * 2**20
"""Weights go in parts of about this size."""
MAX_SYNCS = 10
"""So often are weights sent again for one rollout: after that the server is shared with another run, or dies of it."""


class HasServer(Protocol):
    """Keys of `EngineArguments` that name a server."""

    engine_url: str | None
    engine_token_env: str
    engine_wait_s: float
    engine_timeout_s: float


def open_client(keys: HasServer, config: Any, dtype: str) -> EngineClient:
    """Make what asks the server that the keys name, which must serve a model of this config and type.

    Raises:
        ConfigError: the address or the token is none.
    """
    return EngineClient(
        keys.engine_url or "",
        keys.engine_token_env,
        wait_s=keys.engine_wait_s,
        timeout_s=keys.engine_timeout_s,
        model=describe_model(config),
        dtype=dtype,
    )


class ServerEngine:
    """Samples with a server's engine.

    Args:
        client: Its server.
        processor: The model's.
        vocabulary_size: The model's; no token that comes back is above it.
        end_token_ids: Tokens that end a completion; `None` leaves those of the server's checkpoint.
        open_model: Makes the model that holds the weights whole, as a context: gathers shards. Entered by all ranks.
        gather: Brings one value of each rank together, in their order; called by all ranks.
        is_main: Whether this rank sends the weights.
    """

    def __init__(
        self,
        client: EngineClient,
        processor: ProcessorMixin,
        vocabulary_size: int,
        *,
        end_token_ids: Sequence[int] | None = None,
        open_model: Callable[[Any], AbstractContextManager[Any]] = nullcontext,
        gather: Callable[[Any], list[Any]] = lambda own: [own],
        is_main: bool = True,
    ) -> None:
        """See the class; asks the server what it is.

        Raises:
            ConfigError: it does not let us in, or serves another model.
            EngineError: it is away.
        """
        self.client, self.open_model, self.gather, self.is_main = client, open_model, gather, is_main
        self.vocabulary_size = vocabulary_size
        self.banned = frozenset(vision_token_ids(processor))
        self.end_token_ids = None if end_token_ids is None else list(end_token_ids)
        self.weights = ""
        self._open: Callable[[], AbstractContextManager[Weights]] | None = None
        self._num_syncs = 0
        self._agree(lambda: client.persist(client.status))
        self._run: str = self.gather(uuid.uuid4().hex[:12])[0]

    def update_weights(self, model: Any) -> None:
        """Send the weights of `model`, as the trainer holds it; see `Engine`."""

        @contextmanager
        def opened() -> Iterator[Weights]:
            with self.open_model(model) as whole, torch.no_grad():
                yield lambda: whole_weights(whole)

        self._num_syncs += 1
        self.hold(f"{self._run}-{self._num_syncs}", opened)

    def hold(self, name: str, open_weights: Callable[[], AbstractContextManager[Weights]]) -> None:
        """Sample with these weights from now on.

        Args:
            name: Names no other weights.
            open_weights: Makes them, where the server does not have them; entered by all ranks.
        """
        self.weights, self._open = name, open_weights
        self._sync()

    def sample(
        self, prompts: Sequence[EncodedPrompt], prompt_index: Sequence[int], sampling: Sampling
    ) -> list[Sampled]:
        """Draw completions; see `Engine`.

        Raises:
            ConfigError: the server's engine cannot do what is asked for.
            EngineError: the server is away for too long, hangs, or answers nonsense.
        """
        asked = Asked(
            list(prompts), list(prompt_index), sampling, self.end_token_ids, torch.get_rng_state(), self.weights
        )
        body = pack_asked(asked)
        answer: tuple[list[Sampled], torch.Tensor] | None = None

        def attempt() -> bool:
            nonlocal answer
            try:
                answer = answer or self.client.persist(lambda: self._ask(asked, body))
            except StaleWeightsError as error:
                logger.warning("%s: %s; sending them again", self.client.url, error)
            return answer is not None

        for _ in range(MAX_SYNCS):
            if all(self._agree(attempt)) and answer is not None:
                torch.set_rng_state(answer[1])
                return answer[0]
            self._sync()
        raise EngineError(
            f"{self.client.url} had other weights {MAX_SYNCS} times for one rollout: does another run use it, too? "
            "Give each run a server of its own."
        )

    def _ask(self, asked: Asked, body: bytes) -> tuple[list[Sampled], torch.Tensor]:
        message = self.client.post("/v1/sample", body)
        if message.words.get("weights") != asked.weights:
            raise BrokenMessageError(f"it answers with the weights {message.words.get('weights')!r}")
        sampled = read_sampled(message, asked, self.vocabulary_size, self.banned)
        rng_state = message.tensor("rng_state", torch.uint8)
        try:
            torch.Generator().set_state(rng_state)
        except (RuntimeError, TypeError):
            raise BrokenMessageError("its random numbers are none") from None
        return sampled, rng_state

    def _sync(self) -> None:
        """Send the weights, unless the server has them."""
        if self._open is None:
            raise EngineError("an engine samples after update_weights only")
        if any(self._agree(lambda: self.is_main and self.client.persist(self.client.status).weights == self.weights)):
            return
        with self._open() as weights:
            self._agree(lambda: self.client.persist(lambda: self._send(weights)) if self.is_main else None)

    def _send(self, weights: Weights) -> None:
        """Send weights in parts, once."""
        sender = uuid.uuid4().hex
        part: dict[str, torch.Tensor] = {}
        number = num_bytes = 0

        def post(*, last: bool) -> None:
            words = {"sender": sender, "part": number, "weights": self.weights, "last": last}
            self.client.post("/v1/weights", pack(words, part))

        for name, weight in weights():
            if part and num_bytes + weight.nbytes > PART_BYTES:
                post(last=False)
                part, number, num_bytes = {}, number + 1, 0
            part[name] = weight
            num_bytes += weight.nbytes
        post(last=True)

    def _agree(self, call: Callable[[], T]) -> list[T]:
        """Do something on all ranks, give what each has, and fail on all of them where one fails.

        Raises:
            EngineError: another rank has failed. This one's error stays as it is.
        """
        error: VideoThinkerError | None = None
        result: T | None = None
        try:
            result = call()
        except VideoThinkerError as found:
            error = found
        everything = self.gather((None if error is None else str(error), result))
        if error is not None:
            raise error
        if failed := [words for words, _ in everything if words is not None]:
            raise EngineError(f"another rank stops: {failed[0]}")
        return [one for _, one in everything]
