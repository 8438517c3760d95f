"""What comes back from servers is checked, and keys are kept out of everything that is stored."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from openai.types.chat import ChatCompletion

from video_thinker import redaction
from video_thinker.config import ServerArguments
from video_thinker.errors import ConfigError, ServerError, TeacherError
from video_thinker.generation import server as server_module
from video_thinker.generation.faults import BrokenReplyError, NoJsonError, describe_failure, name_cause
from video_thinker.generation.replies import UsageError, check_completion, clean_text, count_tokens
from video_thinker.generation.server import RequestFailedError, Server, connect, read_key
from video_thinker.synthesis.arguments import Endpoint
from video_thinker.synthesis.client import ChatClient, Limits, Request

KEY = "sk-proj-0123456789abcdef"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setattr(redaction, "_windows", set())


def completion(**choice) -> ChatCompletion:
    message = {"role": "assistant", "content": "<answer>B</answer>"}
    fields = {"index": 0, "finish_reason": "stop", "message": message, **choice}
    return ChatCompletion.construct(
        id="1", choices=[fields if fields["message"] is None else _choice(fields)], created=0, model="m", object="x"
    )


def _choice(fields):
    from openai.types.chat.chat_completion import Choice
    from openai.types.chat.chat_completion_message import ChatCompletionMessage

    return Choice.construct(**{**fields, "message": ChatCompletionMessage.construct(**fields["message"])})


def test_an_answer_is_given_back():
    assert check_completion(completion()).choices[0].message.content == "<answer>B</answer>"


@pytest.mark.parametrize(
    "broken",
    [
        None,
        "text",
        ChatCompletion.construct(id="1", choices=[None], created=0, model="m", object="x"),
        ChatCompletion.construct(id="1", choices={"a": 1}, created=0, model="m", object="x"),
        ChatCompletion.construct(id="1", choices=None, created=0, model="m", object="x"),
        completion(message={"role": "assistant", "content": ["B"]}),
        completion(finish_reason="error"),
        completion(finish_reason="abort"),
    ],
)
def test_what_is_no_answer_is_broken(broken):
    with pytest.raises(BrokenReplyError):
        check_completion(broken)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, (None, None)),
        ({}, (None, None)),
        ({"prompt_tokens": None, "completion_tokens": 7}, (None, 7)),
        ({"prompt_tokens": 3.0, "completion_tokens": 0}, (3, 0)),
    ],
)
def test_tokens_that_a_server_does_not_count_are_not_known(usage, counts):
    reply = completion()
    reply.usage = usage
    assert count_tokens(reply) == counts


@pytest.mark.parametrize("count", [-1, float("nan"), float("inf"), "12", 1.5, True, 10**12, [], {}])
def test_what_is_no_number_of_tokens_is_an_error(count):
    reply = completion()
    reply.usage = {"prompt_tokens": 3, "completion_tokens": count}
    with pytest.raises(UsageError, match=r"usage\.completion_tokens=.*no number of tokens"):
        count_tokens(reply)


@pytest.mark.parametrize("usage", ["many", -3, ["1"]])
def test_a_usage_that_is_no_object_is_an_error(usage):
    reply = completion()
    reply.usage = usage
    with pytest.raises(UsageError):
        count_tokens(reply)


def test_keys_leave_text_and_placeholders_do_not_change_it(monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    read_key("SOME_KEY")
    assert clean_text(f"it is {KEY}") == "it is [key]"
    assert clean_text("<time>00:01-00:10</time> EMPTY") == "<time>00:01-00:10</time> EMPTY"
    assert clean_text("half \ud83d").encode() == b"half ?"
    error = BrokenReplyError(f"the response is no chat completion: {'x' * 295} {KEY}")
    assert KEY[:8] not in describe_failure(error, KEY)
    assert describe_failure(BrokenReplyError("bad abc12"), "abc12") == "BrokenReplyError: bad [key]"


def test_a_key_is_stripped_and_a_proxy_is_not_for_this_machine(monkeypatch):
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    assert read_key("SOME_KEY") == KEY and read_key("NO_SUCH_KEY") is None
    client = connect("http://127.0.0.1:8000/v1", KEY, timeout_s=1)
    assert client.api_key == KEY
    assert not client._client._mounts  # httpx mounts a transport for each proxy of the environment
    assert connect("http://example.com/v1", KEY, timeout_s=1)._client._mounts
    monkeypatch.setenv("SOME_KEY", f"{KEY}\u00e9")
    with pytest.raises(ConfigError, match="SOME_KEY: the key .* characters") as caught:
        read_key("SOME_KEY")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("name", [KEY, "AIzaSyA1", "hf_abc", "two words", "a1b2c3d4e5f6a7b8", "0123456789ABCDEF0123"])
def test_a_key_in_the_place_of_its_name_is_refused_and_not_repeated(name):
    for make in (
        lambda: ServerArguments(backend="openai", base_url="http://h/v1", api_key_env=name),
        lambda: Endpoint.parse({"model": "m", "api_key_env": name}, "teacher"),
    ):
        with pytest.raises(ConfigError, match="name of the environment variable") as caught:
            make()
        assert name not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        {"model": "m", "api_key": KEY},
        {"model": "m", "parameters": {"api_key": KEY}},
        {"model": "m", "parameters": {"extra": [{"headers": {"X-Api-Key": KEY}}]}},
        {"model": "m", "parameters": {"user": KEY}},
        {"model": "m", "base_url": f"https://user:{KEY}@host/v1"},
        {"model": "m", "base_url": f"https://host/v1?key={KEY}"},
        {"model": "m", "base_url": f"https://user:a/b{KEY}@host/v1"},
        {"model": "m", "base_url": f"https://host:{KEY}/v1"},
        KEY,
    ],
)
def test_an_endpoint_that_holds_a_key_is_refused_and_not_repeated(value):
    with pytest.raises(ConfigError) as caught:
        Endpoint.parse(value, "teacher")
    assert KEY not in str(caught.value)


def test_a_budget_that_would_never_be_used_up_is_refused(tmp_path):
    remote = Endpoint("m", "https://example.com/v1")
    with pytest.raises(ConfigError, match="max_cost=20: teacher: no price_input"):
        ChatClient({"teacher": remote}, tmp_path / "a", Limits(max_cost=20))
    local = Endpoint("m", "http://127.0.0.1:8000/v1")
    ChatClient({"validator": local}, tmp_path / "b", Limits(max_cost=20)).cache.close()


def test_roles_that_ask_one_endpoint_share_its_rate(tmp_path):
    endpoint = Endpoint("m", "http://127.0.0.1:8000/v1", requests_per_minute=60)
    other = Endpoint("n", "http://127.0.0.1:8000/v1", requests_per_minute=60)
    client = ChatClient({"teacher": endpoint, "captioner": endpoint, "validator": other}, tmp_path)
    limiters = {role: server.limiter for role, server in client._servers.items()}
    assert limiters["teacher"] is limiters["captioner"] is not limiters["validator"]
    client.cache.close()


# Faults of real sockets: `serve` answers each connection with some bytes.


def http(body: bytes | str, status: str = "200 OK", *headers: str, kind: str = "application/json") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(data)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + data


def reply(**changes) -> str:
    message = {"role": "assistant", "content": "<answer>B</answer>"}
    body = {
        "id": "1", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
    }  # fmt: skip
    return json.dumps({**body, **changes})


@contextmanager
def serve(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Answer the nth connection with the nth bytes, and all further ones with the last; give address and requests."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def work() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    request = b""
                    while b"\r\n\r\n" not in request:
                        request += connection.recv(65536)
                    head, _, body = request.partition(b"\r\n\r\n")
                    length = next(
                        (int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")),
                        0,
                    )
                    while len(body) < length:
                        body += connection.recv(65536)
                    requests.append(head + body)
                    connection.sendall(answers[min(len(requests), len(answers)) - 1])

        threading.Thread(target=work, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", requests
        listening.shutdown(socket.SHUT_RDWR)  # or the thread would take one more


def make_server(url: str, **changes) -> Server:
    options = {"timeout_s": 5.0, "max_tries": 2, "max_backoff_s": 0.01, **changes}
    return Server(url, "NO_SUCH_KEY", **options)


def ask(server: Server, times: int = 1) -> list:
    """Send requests one after the other; give answers and errors."""

    async def run() -> list:
        results = []
        async with server.connected():
            for _ in range(times):
                try:
                    results.append(await server.complete(model="m", messages=[{"role": "user", "content": "?"}]))
                except (RequestFailedError, ServerError) as error:
                    results.append(error)
        return results

    return asyncio.run(run())


def free_address(host: str = "127.0.0.1", scheme: str = "http") -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"{scheme}://{host}:{unused.getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        (free_address(), "connection refused"),
        ("http://no-such-host.invalid/v1", "host name is not known"),
        (free_address(scheme="https"), "connection refused"),
    ],
    ids=["refused", "unknown host", "refused over https"],  # the workers of a parallel run must agree on the names
)
def test_a_server_that_is_away_is_named_and_asked_no_more(url, cause):
    server = make_server(url, max_tries=50)
    first, second = ask(server, times=2)
    assert type(first) is ServerError and cause in str(first) and url in str(first)
    assert "the same command continues" in str(first) and str(second) == str(first)
    assert server.num_sent == 1


CASES = {
    "a web page": (http("<!DOCTYPE html><title>Welcome</title>", kind="text/html"), "web page (HTML)"),
    "a web page that says it is JSON": (http("<html></html>"), "web page (HTML)"),
    "an empty body": (http(""), "the body is empty"),
    "an empty text": (http("", kind="text/plain"), "the body is empty"),
    "a redirect": (
        http("", "307 Temporary Redirect", "Location: http://evil.example/v1/x"),
        "http://evil.example) is not",
    ),
    "a packed body": (http(b"\x1f\x8b", "200 OK", "Content-Encoding: gzip"), "packed"),
    "a body of 2 GB": (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000000\r\n\r\n{", "longer than"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_first_answer_that_no_chat_server_gives_stops_at_once(case):
    answer, cause = CASES[case]
    with serve(answer) as (url, requests):
        server = make_server(url, max_tries=50)
        (error,) = ask(server)
    assert type(error) is ServerError and cause in str(error)
    assert len(requests) == 1


def test_a_body_that_never_ends_is_not_read(monkeypatch):
    monkeypatch.setattr(server_module, "MAX_BODY_BYTES", 10_000)
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"1000\r\n" + b" " * 4096 + b"\r\n") * 50
    with serve(chunks) as (url, requests):
        (error,) = ask(make_server(url))
    assert "longer than" in str(error) and len(requests) == 1


def test_a_redirect_on_the_same_host_is_followed():
    with serve(http("", "307 Temporary Redirect", "Location: /v2/chat"), http(reply())) as (url, requests):
        (answer,) = ask(make_server(url))
    assert answer.prompt_tokens == 9 and requests[1].startswith(b"POST /v2/chat")


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (http(reply())[:-20], "the body was cut"),
        (http(reply()[:50]), "no JSON, or was cut"),
        (b"", "without a response"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "speaks no HTTP"),
        (http('{"error": {"message": "overloaded"}}', "503 Service Unavailable"), "HTTP 503: overloaded"),
    ],
)
def test_what_may_pass_is_tried_again_and_named(answer, cause):
    with serve(answer) as (url, requests):
        first, second, third, fourth = ask(make_server(url), times=4)
    assert isinstance(first, RequestFailedError) and first.transient and cause in str(first)
    assert isinstance(second, RequestFailedError)
    assert type(third) is ServerError and "3 requests in a row failed" in str(third) and cause in str(third)
    assert str(fourth) == str(third) and len(requests) == 6


def test_answers_between_failures_keep_a_server_alive():
    bad, good = http("{", "500 Internal Server Error"), http(reply())
    with serve(bad, bad, good, bad, bad, good, bad, bad, good, good) as (url, requests):
        results = ask(make_server(url, max_tries=1), times=9)
    assert [isinstance(one, RequestFailedError) for one in results] == [True, True, False] * 3


def test_a_web_page_after_answers_may_pass():
    page = http("<html>502</html>", kind="text/html")
    with serve(http(reply()), page, http(reply())) as (url, requests):
        first, second = ask(make_server(url), times=2)
    assert first.completion_tokens == second.completion_tokens == 5 and len(requests) == 3


def test_a_server_that_dies_is_noticed_within_its_probes():
    with serve(http(reply())) as (url, _):
        server = make_server(url, max_tries=50)
        (first,) = ask(server)
    (second,) = ask(server)
    assert first.prompt_tokens == 9 and "connection refused" in str(second) and server.num_sent == 2


def test_a_wrong_path_is_named_and_not_tried_again():
    with serve(http("<html>Not Found</html>", "404 Not Found", kind="text/html")) as (url, requests):
        (error,) = ask(make_server(url))
    assert error.status == 404 and not error.transient and len(requests) == 1
    assert "HTTP 404, no such path or model" in str(error)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "too many open files: raise the limit (ulimit -n)"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "reset the connection"),
        (ExceptionGroup("all failed", [ConnectionRefusedError(errno.ECONNREFUSED, "x")]), "connection refused"),
        (TimeoutError(), "timeout: no answer within 3 s"),
        (NoJsonError("the body is empty"), "the body is empty"),
    ],
)
def test_the_cause_is_found_where_libraries_keep_it(error, cause):
    outer = RuntimeError("Connection error.")
    outer.__cause__ = error
    assert cause in name_cause(outer, 3.0)


def test_a_certificate_that_is_not_accepted_is_named():
    import ssl

    error = ssl.SSLCertVerificationError(1, "verify failed")
    error.verify_message = "self-signed certificate"
    assert "TLS certificate is not accepted (self-signed certificate)" in name_cause(error)


def test_a_server_of_plain_http_behind_https_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def work() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=work, daemon=True).start()
        (error,) = ask(make_server(f"https://127.0.0.1:{listening.getsockname()[1]}/v1"))
    assert type(error) is ServerError and "http:// in place of https://" in str(error)


# Budgets


def spend(tmp_path, answer: str, limits: Limits, **prices) -> tuple[list, ChatClient, int]:
    with serve(http(answer)) as (url, requests):
        endpoint = Endpoint("m", url, **prices)

        async def run():
            client = ChatClient({"teacher": endpoint}, tmp_path / "cache", limits)
            async with client:
                asked = [client.ask("teacher", Request(f"s{i}", "trace", "be brief", {"a": 1})) for i in range(4)]
                return await asyncio.gather(*asked, return_exceptions=True), client

        results, client = asyncio.run(run())
    return results, client, len(requests)


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": 7}])
@pytest.mark.parametrize("limit", [{"max_cost": 20.0}, {"max_tokens": 10**6}])
def test_a_budget_without_usage_is_refused_at_the_first_reply_and_counted(tmp_path, usage, limit):
    results, client, num_requests = spend(
        tmp_path, reply(usage=usage), Limits(**limit), price_input=1000.0, price_output=1000.0
    )
    assert num_requests == 1
    assert all(isinstance(one, TeacherError) and "does not report how many tokens" in str(one) for one in results)
    spent = client.spent["teacher"]
    assert spent.requests == 1 and spent.prompt_tokens >= len("be brief") and spent.completion_tokens >= 18
    assert client.cost() > 0


def test_a_negative_usage_is_an_error_and_counted(tmp_path):
    usage = {"prompt_tokens": -5, "completion_tokens": 5}
    results, client, _ = spend(tmp_path, reply(usage=usage), Limits(), price_input=1.0)
    assert all(isinstance(one, TeacherError) and "prompt_tokens='-5'" in str(one) for one in results)
    assert client.spent["teacher"].prompt_tokens > 0


def test_without_a_budget_no_usage_is_no_error(tmp_path):
    results, client, num_requests = spend(tmp_path, reply(usage=None), Limits())
    assert num_requests == 4 and all(one.prompt_tokens == 0 for one in results)
    assert client.spent["teacher"].requests == 4
