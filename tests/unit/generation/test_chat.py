"""What comes back from servers is checked, and keys are kept out of everything that is stored."""

from __future__ import annotations

import asyncio

import pytest
from openai.types.chat import ChatCompletion

from video_thinker.config import ServerArguments
from video_thinker.errors import ConfigError
from video_thinker.generation.chat import (
    BrokenReplyError,
    check_completion,
    clean_text,
    connect,
    count_tokens,
    describe_failure,
)
from video_thinker.synthesis.arguments import Endpoint
from video_thinker.synthesis.client import ChatClient, Limits

KEY = "sk-proj-0123456789abcdef"


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


def test_tokens_that_a_server_does_not_count_are_none():
    assert count_tokens(completion()) == (0, 0)
    reply = completion()
    reply.usage = type("Usage", (), {"prompt_tokens": None, "completion_tokens": 7})()
    assert count_tokens(reply) == (0, 7)


def test_keys_leave_text_and_placeholders_do_not_change_it():
    assert clean_text(f"it is {KEY}", [KEY]) == "it is [key]"
    assert clean_text("<time>00:01-00:10</time> EMPTY", ["1", "EMPTY"]) == "<time>00:01-00:10</time> EMPTY"
    assert clean_text("half \ud83d", []).encode() == b"half ?"
    error = BrokenReplyError(f"the response is no chat completion: {'x' * 295} {KEY}")
    assert KEY[:8] not in describe_failure(error, [KEY])


def test_a_key_is_stripped_and_a_proxy_is_not_for_this_machine(monkeypatch):
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    client, key = connect("http://127.0.0.1:8000/v1", "SOME_KEY", timeout_s=1)
    assert key == KEY and client.api_key == KEY
    assert not client._client._mounts  # httpx mounts a transport for each proxy of the environment
    remote, _ = connect("http://example.com/v1", "SOME_KEY", timeout_s=1)
    assert remote._client._mounts


@pytest.mark.parametrize("name", [KEY, "AIzaSyA1", "hf_abc", "two words"])
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
        {"model": "m", "base_url": f"https://user:{KEY}@host/v1"},
        {"model": "m", "base_url": f"https://host/v1?key={KEY}"},
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
    assert client._limiters["teacher"] is client._limiters["captioner"]
    assert client._limiters["teacher"] is not client._limiters["validator"]
    asyncio.run(client.close())
