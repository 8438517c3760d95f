"""An engine behind HTTP gives what it gives here, bit for bit; what goes wrong on the way is named, and counts not."""

from __future__ import annotations

import functools
import http.client
import logging
import threading
from http.server import BaseHTTPRequestHandler

import pytest
import torch

from tests.unit.generation import served_stub as stub
from tests.unit.generation.served_stub import make_client, make_engine, make_model, make_served, sample, serving
from video_thinker.errors import ConfigError, EngineError, NonFiniteError
from video_thinker.generation import engine_client, engine_http, engine_server
from video_thinker.generation.arguments import EngineArguments, ServeArguments
from video_thinker.generation.engine_server import Handler
from video_thinker.generation.serve_engine import open_server
from video_thinker.generation.served import difference
from video_thinker.generation.wire import CONTENT_TYPE, pack, unpack

TOKEN = "a-token-of-this-test-1234"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Seconds become hundredths."""
    monkeypatch.setattr(engine_http, "POLL_S", 0.01)
    monkeypatch.setattr(engine_http, "SILENCE_S", 1.0)
    monkeypatch.setattr(engine_server, "BEAT_S", 0.02)


def here(seed: int = 1) -> list:
    """What the engine gives in this process."""
    return sample(stub.StubEngine(make_model(seed)))


def test_completions_log_probs_and_random_numbers_are_those_of_the_engine_here():
    with serving() as server:
        engine = make_engine(server.url)
        assert sample(engine) == here()
        assert {one.weights for one in engine.sample(stub.PROMPTS, stub.INDEX, stub.SAMPLING)} == {engine.weights}


def test_new_weights_are_used_from_the_next_request_on(monkeypatch):
    monkeypatch.setattr(engine_client, "PART_BYTES", 50)  # so that they go in several parts
    with serving() as server:
        engine = make_engine(server.url)
        engine.update_weights(make_model(2))
        assert sample(engine) == here(2) != here(1)


def test_a_message_comes_as_it_was_sent():
    whole = torch.randn(6, 4)
    tensors = {"a": whole[2:], "b": whole[:3], "c": whole.t(), "d": torch.tensor(float("nan")), "e": torch.ones(0, 3)}
    message = unpack(pack({"x": [1, None, "é"]}, tensors))
    assert message.words == {"x": [1, None, "é"]}
    assert all(torch.equal(message.tensors[name].nan_to_num(), one.nan_to_num()) for name, one in tensors.items())


# --- answers that cannot be true --------------------------------------------------------------------------------------


def tampered(change):
    """A server's `sample` whose message is changed on its way."""

    def wrap(original, message):
        answer = unpack(original(message))
        changed = change(dict(answer.words), dict(answer.tensors))
        return changed if isinstance(changed, bytes) else pack(*changed)

    return wrap


def put(name, make):
    return tampered(lambda words, tensors: (words, {**tensors, name: make(tensors[name])}))


GARBAGE = {
    "a completion too few": (put("lengths", lambda one: one[1:]), "3 completions came for 4"),
    "lengths of other tokens": (put("token_ids", lambda one: one[:-1]), "the lengths are"),
    "a completion that is empty": (put("lengths", lambda one: one * 0), "the lengths are"),
    "an id that is none": (put("token_ids", lambda one: one + stub.VOCABULARY), "can never be sampled"),
    "a vision token": (put("token_ids", lambda one: one * 0 + stub.VISION), "the first 9"),
    "no end where it has ended": (put("finished", torch.ones_like), "its last token"),
    "a log-probability that is none": (put("log_probs", lambda one: one * torch.nan), "not finite"),
    "a probability above 1": (put("log_probs", lambda one: one + 100), "not finite"),
    "a log-probability too few": (put("log_probs", lambda one: one[1:]), "log-probabilities"),
    "another type": (put("token_ids", lambda one: one.float()), "torch.float32"),
    "no random numbers": (put("rng_state", lambda one: one[:100]), "its random numbers"),
    "nothing": (tampered(lambda words, tensors: (words, {})), "is missing"),
    "other weights": (tampered(lambda words, tensors: ({**words, "weights": "x"}, tensors)), "the weights 'x'"),
    "half of it": (tampered(lambda words, tensors: pack(words, tensors)[:-50]), "are no message"),
    "no message": (tampered(lambda words, tensors: b"\xff" * 300), "are no message"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_an_answer_that_cannot_be_true_is_asked_for_again_and_stops_the_run_in_the_end(monkeypatch, caplog, kind):
    wrap, words = GARBAGE[kind]
    with serving() as server:
        engine = make_engine(server.url)
        original, times = server.sample, []

        def sample_wrongly(message, wrong=2):
            times.append(1)
            return wrap(original, message) if len(times) <= wrong else original(message)

        server.sample = sample_wrongly
        monkeypatch.setattr(stub, "SAMPLING", stub.Sampling(max_new_tokens=1, temperature=1.0))
        good = here()
        with caplog.at_level(logging.WARNING):
            assert sample(engine) == good, "the third answer is right, and the first two left no trace"
        assert len(times) == 3 and words in caplog.text
        times.clear()
        server.sample = functools.partial(sample_wrongly, wrong=9)
        with pytest.raises(EngineError, match="3 answers that cannot be true") as caught:
            engine.sample(stub.PROMPTS, stub.INDEX, stub.SAMPLING)
        assert words in str(caught.value)


# --- servers that are lost --------------------------------------------------------------------------------------------


class Page(BaseHTTPRequestHandler):
    """Answers what a test says, in the place of the engine's handler."""

    status, body, length = 200, b"<!DOCTYPE html><html>hello</html>", None

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Type", "text/html" if self.length is None else CONTENT_TYPE)
        self.send_header("Content-Length", str(self.length or len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST

    def log_message(self, *args):
        pass


class Cut(Handler):
    """Sends half of its answer and closes the connection."""

    def _chunk(self, data):
        self.wfile.write(b"%x\r\n%b" % (len(data) + 100, data))
        self.close_connection = True
        raise BrokenPipeError


class Silent(Handler):
    """Takes a request and never says anything."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        threading.Event().wait(20)


class Gone(Handler):
    """Closes the connection at once."""

    def do_POST(self):
        self.close_connection = True


LOST = {
    "a gateway's page": (type("Gateway", (Page,), {"status": 502, "do_GET": Handler.do_GET}), "HTTP 502: a web page"),
    "a cut answer": (Cut, "its answer was cut"),
    "a body that is too short": (type("Short", (Page,), {"length": 10**6}), "its answer was cut"),
    "silence": (Silent, "it has been silent for 0.3 s"),
    "no answer": (Gone, "closed the connection without an answer"),
}


@pytest.mark.parametrize("kind", LOST)
def test_a_server_that_is_lost_in_the_middle_is_asked_again(monkeypatch, caplog, kind):
    handler, words = LOST[kind]
    monkeypatch.setattr(engine_http, "SILENCE_S", 0.3)
    with serving() as server:
        engine = make_engine(server.url)
        server.RequestHandlerClass = handler
        wait = engine_http.EngineClient._wait

        def mend_then_wait(client, cause):
            server.RequestHandlerClass = Handler
            wait(client, cause)

        monkeypatch.setattr(engine_http.EngineClient, "_wait", mend_then_wait)
        with caplog.at_level(logging.WARNING):
            assert sample(engine) == here()
    assert words in caplog.text and "is back after" in caplog.text


def test_a_web_page_at_the_address_is_named():
    with serving() as server:
        server.RequestHandlerClass = Page
        with pytest.raises(EngineError, match=r"something else: a web page \(HTML\)"):
            make_engine(server.url)


def test_a_server_that_stays_away_stops_the_run_when_the_wait_is_over():
    with serving() as server:
        engine = make_engine(server.url, wait_s=0.0)
    with pytest.raises(EngineError, match=r"connection refused.*within engine_wait_s=0"):
        sample(engine)


def test_a_request_that_ends_the_server_again_and_again_stops_the_run(monkeypatch):
    with serving() as server:
        engine = make_engine(server.url)
        server.RequestHandlerClass = Gone
        monkeypatch.setattr(engine_http, "MAX_LOST", 3)
        with pytest.raises(EngineError, match="lost 4 times with the same request"):
            sample(engine)


def test_an_engine_that_hangs_while_its_server_is_there_is_named(monkeypatch):
    with serving() as server:
        engine = make_engine(server.url, timeout_s=0.1)
        monkeypatch.setattr(server.served.engine, "sample", lambda *_: threading.Event().wait(3))
        with pytest.raises(EngineError, match="is there, but gave no answer within engine_timeout_s=0.1"):
            sample(engine)


# --- other weights, other models --------------------------------------------------------------------------------------


def test_a_server_that_was_started_anew_gets_the_weights_again(caplog):
    with serving() as server:
        engine = make_engine(server.url)
        server.served = make_served(seed=9)  # as after a restart
        with caplog.at_level(logging.WARNING):
            assert sample(engine) == here()
    assert "the server has the weights first" in caplog.text


def test_two_runs_that_share_a_server_never_get_each_others_weights():
    with serving() as server:
        first, second = make_engine(server.url, make_model(1)), make_engine(server.url, make_model(2))
        for _ in range(2):
            assert sample(first) == here(1)
            assert sample(second) == here(2)


def test_a_server_that_loses_its_weights_every_time_stops_the_run(monkeypatch):
    with serving() as server:
        engine = make_engine(server.url)
        take = server.served.commit
        monkeypatch.setattr(server.served, "commit", lambda sender, name: take(sender, "others"))
        server.served.weights = None
        with pytest.raises(EngineError, match="does another run use it, too"):
            sample(engine)


def test_another_model_or_type_is_refused_by_name(monkeypatch):
    with (
        serving(make_served(**{"text.hidden_size": 8})) as server,
        pytest.raises(ConfigError, match="hidden_size is 8"),
    ):
        make_engine(server.url)
    with serving() as server:
        client = make_client(server.url)
        client.dtype = "bfloat16"
        with pytest.raises(ConfigError, match="weights in float32, here they are bfloat16"):
            client.status()
    assert difference({"a": 1}, {"b": 1}) == "it does not say what its model is"


def test_weights_of_another_shape_are_refused_and_the_old_ones_stay():
    with serving() as server:
        engine = make_engine(server.url)
        with pytest.raises(ConfigError, match=r"weight odd is .*\(2,\).*has no such name"):
            engine.update_weights(torch.nn.ParameterDict({"odd": torch.ones(2)}))
        assert server.served.weights == f"{engine._run}-1"
        with pytest.raises(EngineError, match="1 of 4 weights came"):
            engine.update_weights(torch.nn.ModuleDict({"head": torch.nn.Linear(1, stub.VOCABULARY, bias=False)}))


def test_half_of_the_weights_change_nothing(monkeypatch):
    """A sender that dies in the middle leaves the engine as it was; the next one begins anew."""
    with serving() as server:
        engine = make_engine(server.url)
        client, words = engine.client, {"sender": "dead", "part": 0, "weights": "half", "last": False}
        client.post("/v1/weights", pack(words, {"head.weight": torch.zeros(stub.VOCABULARY, 1)}))
        assert sample(engine) == here()
        engine.update_weights(make_model(2))
        assert sample(engine) == here(2)


# --- several ranks ----------------------------------------------------------------------------------------------------


class Ranks:
    """Runs one function on two threads, whose `gather` brings their values together."""

    def __init__(self):
        self.barrier, self.values = threading.Barrier(2, timeout=20), [None, None]

    def gather(self, rank, own):
        self.values[rank] = own
        self.barrier.wait()
        everything = list(self.values)
        self.barrier.wait()
        return everything

    def run(self, work):
        results = [None, None]

        def call(rank):
            try:
                results[rank] = work(rank, functools.partial(self.gather, rank))
            except Exception as error:  # noqa: BLE001  # looked at by the test
                results[rank] = error

        threads = [threading.Thread(target=call, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def test_rank_0_sends_the_weights_and_all_ranks_send_them_again_where_one_finds_others():
    posts = []
    with serving() as server:
        take, ranks = server.take_weights, Ranks()
        server.take_weights = lambda message: posts.append(1) or take(message)

        def work(rank, gather):
            engine = make_engine(server.url, gather=gather, is_main=rank == 0)
            gather(None)
            if rank == 1:
                server.served = make_served(seed=9)
            gather(None)
            return [
                one.token_ids for one in engine.sample(stub.PROMPTS, stub.INDEX, stub.Sampling(3, 0.5))
            ], engine.weights

        (first, name), (second, other) = ranks.run(work)
    assert len(posts) == 2 and name == other and len(first) == len(second) == 4


def test_where_one_rank_stops_all_stop():
    def fail(*_):
        raise NonFiniteError("not finite")

    with serving() as server:

        def work(rank, gather):
            engine = make_engine(server.url, gather=gather, is_main=rank == 0)
            if rank:
                engine.client.post = fail
            return engine.sample(stub.PROMPTS, stub.INDEX, stub.SAMPLING)

        first, second = Ranks().run(work)
    assert isinstance(second, NonFiniteError)
    assert isinstance(first, EngineError) and "another rank stops: not finite" in str(first)


# --- errors of the engine, settings, and who may ask ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("no beams"), ConfigError),
        (NonFiniteError("nan"), NonFiniteError),
        (RuntimeError("odd"), EngineError),
    ],
)
def test_what_the_engine_says_no_with_arrives(monkeypatch, error, kind):
    def fail(*_):
        raise error

    with serving() as server:
        engine = make_engine(server.url)
        monkeypatch.setattr(server.served.engine, "sample", fail)
        with pytest.raises(kind, match=str(error)):
            sample(engine)
        monkeypatch.undo()
        monkeypatch.setattr(engine_http, "POLL_S", 0.01)
        assert sample(engine) == here()


def test_an_option_that_is_no_json_is_refused_by_name():
    with serving() as server, pytest.raises(ConfigError, match="assistant_model=.*cannot go to engine=server"):
        make_engine(server.url).sample(stub.PROMPTS, stub.INDEX, stub.Sampling(options={"assistant_model": print}))


def ask(server, method="POST", path="/v1/sample", body=b"", **headers) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=5)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(body)
    response = connection.getresponse()
    return response.status, response.read().decode("latin-1")


def test_a_token_is_asked_for_before_anything_is_read(monkeypatch, caplog):
    with serving(token=TOKEN) as server, caplog.at_level(logging.DEBUG):
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            assert ask(server, Content_Type=CONTENT_TYPE, Content_Length="999999999999", **given)[0] == 401
            assert ask(server, "GET", "/v1/status", **given)[0] == 401
        with pytest.raises(ConfigError, match=r"refuses: HTTP 401.*ENGINE_TOKEN_OF_TEST") as caught:
            make_engine(server.url)
        monkeypatch.setenv("ENGINE_TOKEN_OF_TEST", TOKEN)
        assert sample(make_engine(server.url)) == here()
    assert TOKEN not in caplog.text + str(caught.value)


def test_who_may_ask_without_a_token():
    with serving() as server:
        assert ask(server, "GET", "/v1/status", Host="evil.example:80")[0] == 403
        assert ask(server, "GET", "/v1/status", Host=f"localhost:{server.server_address[1]}")[0] == 200
        kind = {"Content_Type": CONTENT_TYPE}
        assert ask(server, Content_Type="text/plain", Content_Length="0")[0] == 415
        assert ask(server, **kind)[0] == 411
        assert ask(server, **kind, Content_Length="-5")[0] == 411
        assert ask(server, **kind, Content_Length=str(2**20 + 1))[0] == 413
        assert ask(server, **kind, Content_Length="3", body=b"abc")[0] == 400
        assert ask(server, "POST", "/v1/../etc/passwd", **kind)[0] == 404
        assert ask(server, "GET", "/etc/passwd")[0] == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org"])
def test_another_address_than_this_machines_own_needs_a_token(monkeypatch, host):
    monkeypatch.delenv("VIDEO_THINKER_ENGINE_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=f"host={host}: other machines could use this engine"):
        open_server(ServeArguments(host=host, port=0))


def test_an_address_that_is_taken_is_named():
    with serving() as server, pytest.raises(ConfigError, match="cannot be taken"):
        open_server(ServeArguments(port=server.server_address[1]))


def test_a_rollout_that_is_longer_than_the_server_reads_is_refused_with_the_key():
    with serving(limit=20_000) as server:
        engine = make_engine(server.url)
        with pytest.raises(ConfigError, match="raise max_body_mib"):
            engine.sample(stub.PROMPTS * 20, stub.INDEX, stub.SAMPLING)


@pytest.mark.parametrize("url", ["127.0.0.1:8500", "ftp://x", "http://", "http://user:secret-word@host:1"])
def test_an_address_that_is_none_is_named_without_its_password(url):
    with pytest.raises(ConfigError, match="write an address") as caught:
        make_client(url)
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize("keys", [{"engine": "server"}, {"engine": "vllm", "engine_url": "http://127.0.0.1:1"}])
def test_engine_and_address_go_together(keys):
    with pytest.raises(ConfigError, match="engine=server needs the address"):
        EngineArguments(**keys).check_engine()
    with pytest.raises(ConfigError, match="serves an engine of its own process"):
        ServeArguments(engine="server", engine_url="http://127.0.0.1:1")
