"""No key is shown: in every form that servers, libraries and our own messages may write it."""

from __future__ import annotations

import base64
import logging
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from video_thinker import cli, redaction
from video_thinker.redaction import (
    RedactingFormatter,
    has_key,
    is_secret_name,
    redact,
    redact_known,
    redact_values,
    redacted_output,
    register,
    register_arguments,
    register_environment,
    register_text,
)

KEY = "Zq7xW2vT9bN4mK6j"  # in no form that a provider gives: it is known because it was registered
ODD = "Zq7xW2vT9b+N4/mK6jR1"  # its base64, percent-encoded and JSON forms differ from it
SK = "sk-proj-4f9a8b7c6d5e4f3a"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setattr(redaction, "_windows", set())


def parts_of(key: str, text: str) -> list[str]:
    """List the parts of 8 characters of a key that a text shows."""
    return [key[i : i + 8] for i in range(len(key) - 7) if key[i : i + 8].lower() in text.lower()]


@pytest.mark.parametrize(
    "echo",
    [
        KEY,
        f"Bearer {KEY}",
        f"Incorrect key: {KEY[:8]}…",
        f"it ends in {KEY[-8:]}",
        f"{KEY[:9]}****{KEY[-9:]}",
        KEY.upper(),
        KEY.encode().hex(),
        f"{KEY}{KEY}",
    ],
)
def test_a_known_key_leaves_a_text_whole_or_in_parts(echo):
    register(KEY)
    text = redact(f"the server says: {echo}, and stops")
    assert parts_of(KEY, text) == [] and parts_of(KEY.encode().hex(), text) == []
    assert text.startswith("the server says: ") and text.endswith(", and stops") and "[key]" in text


@pytest.mark.parametrize("before", ["", "u", "us", "user:", "Bearer "])
def test_base64_of_a_key_leaves_a_text_at_every_offset(before):
    register(KEY)
    coded = base64.b64encode(f"{before}{KEY}".encode()).decode().rstrip("=")
    text = redact(f"header {coded} end")
    assert "[key]" in text and text.endswith("end")
    for i in range(len(coded) - 11):  # what is left gives no 8 characters back
        part = coded[i : i + 12]
        assert part not in text


@pytest.mark.parametrize(
    "form",
    [
        "".join(f"&#{ord(one)};" for one in ODD),
        "".join(f"\\u{ord(one):04x}" for one in ODD),
        "".join(f"\\x{ord(one):02x}" for one in ODD),
        ODD[::-1],
        " ".join(ODD),
        "-".join(ODD[i : i + 4] for i in range(0, len(ODD), 4)),
        f"{ODD[:9]}\n{ODD[9:]}",
        ODD.replace("/", "\\/"),
        quote(ODD, safe="").lower(),
        quote(quote(ODD, safe=""), safe=""),
        base64.b32encode(ODD.encode()).decode(),
        base64.b64encode(ODD.encode("utf-16-le")).decode(),
    ],
)
def test_a_key_leaves_a_text_however_it_is_written(form):
    register(ODD)
    text = redact(f"the server says: {form}: no")
    assert form not in text and "[key]" in text and text.startswith("the server says: ") and text.endswith(": no")
    assert len(text) < len("the server says: : no") + 20


def test_words_that_look_random_leave_messages_about_wrong_places_only():
    for word in (KEY, ODD, "4f9a8b7c6d5e4f3a", f"{KEY}=1"):
        assert parts_of(word[:16], redaction.redact_random(f"unknown key {word!r}")) == []
    for word in (
        "learning_rate",
        "perDeviceTrainBatchSize",
        "adam_beta2",
        "qwen2_5_vl",
        "checkpoint12000",
        "2024-01-02T10",
    ):
        assert redaction.redact_random(f"unknown key {word!r}") == f"unknown key {word!r}"
    assert redact(f"unknown key {KEY!r}") == f"unknown key {KEY!r}"


def test_placeholders_and_short_texts_are_no_keys():
    register("EMPTY", "1", "not-needed", "  ")
    assert redact("<time>00:01-00:10</time> EMPTY 1 not-needed") == "<time>00:01-00:10</time> EMPTY 1 not-needed"


@pytest.mark.parametrize(
    "text",
    [
        f"http://bob:{KEY}@host/v1 refused",
        f"http://{KEY}@host/v1",
        f"GET https://host/v1?api_key={KEY}&x=1",
        f"{{'api_key': '{KEY}', 'top_k': 1}}",
        f'{{"Authorization": "Bearer {KEY}"}}',
        f"X-Api-Key: {KEY}",
        f"my_password={KEY}",
        f"Authorization: Basic {KEY}==",
    ],
)
def test_a_value_in_the_place_of_a_key_is_taken_out(text):
    assert parts_of(KEY, redact(text)) == []


@pytest.mark.parametrize(
    "key",
    [SK, "hf_AbCdEf0123456789", "gsk_abcdefgh01234567", "AIzaSyA0123456789", "ghp_0123456789abcdefghij",
     "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefgh", "AKIAIOSFODNN7EXAMPLE"],
)  # fmt: skip
def test_forms_of_providers_are_known(key):
    assert has_key(f"x {key}") and key not in redact(f"unknown key {key!r}")


@pytest.mark.parametrize(
    "text",
    [
        "api_key_env=OPENAI_API_KEY: no such variable",
        "max_tokens=100, stop_token: <|im_end|>",
        "configs/eval/toy.yaml: unknown key 'api_kye'; did you mean 'api_key_env'?",
        "risk-2024-0123456789abcdef.mp4: no such file",
        "password: must be set",
        "https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct",
        "v_sk/task-0123456789abcdef.mp4",
    ],
)
def test_other_texts_stay_as_they_are(text):
    assert redact(text) == text


def test_names_of_fields_that_hold_keys():
    held = ["api_key", "OPENAI_API_KEY", "HF_TOKEN", "Authorization", "x-api-key", "password", "secret", "auth"]
    assert all(map(is_secret_name, held))
    assert not any(map(is_secret_name, ["api_key_env", "max_tokens", "eos_token", "keys", "monkey", "author", "top_k"]))


def test_keys_are_learnt_from_environment_arguments_and_config():
    register_environment({"SOME_API_KEY": "environment-key-1", "PATH": "/usr/bin", "AUTH_TOKEN": "/run/token/file"})
    register_arguments(
        ["c.yaml", "my_api_key=argument-key-22", "--token", "flag-key-333", "x={secret: nested-key-4444}"]
    )
    register_text("base_url: http://me:url-password-5@h/v1\nheaders:\n  Authorization: Bearer config-key-666666\n")
    shown = redact(
        "environment-key-1 argument-key-22 flag-key-333 nested-key-4444 url-password-5 config-key-666666 /usr/bin"
    )
    assert shown == f"{'[key] ' * 6}/usr/bin"
    assert redact("/run/token/file") == "/run/token/file"


def test_what_a_model_wrote_loses_known_keys_only():
    register(KEY)
    text = f"The sign reads password: open-sesame-123 and {KEY}"
    assert redact_known(text) == "The sign reads password: open-sesame-123 and [key]"


def test_nested_values_are_redacted_and_numbers_stay():
    register(KEY)
    assert redact_values({"a": [1, f"x {KEY}", None], "b": {"c": True}}) == {
        "a": [1, "x [key]", None],
        "b": {"c": True},
    }


def test_a_log_line_and_its_traceback_hold_no_key():
    register(KEY)
    try:
        raise ValueError(f"bad {KEY}")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "said %s", (KEY,), sys.exc_info())
    line = RedactingFormatter("%(message)s").format(record)
    assert "said [key]" in line and "ValueError: bad [key]" in line and KEY not in line


@pytest.mark.parametrize(
    "argv",
    [
        ["eval", "{yaml}", "backend=openai", f"base_url=http://bob:{KEY}@127.0.0.1:9/v1"],
        ["eval", "{yaml}", "backend=openai", f"base_url=http://127.0.0.1:9/v1?key={KEY}"],
        ["eval", "{yaml}", "backend=openai", "base_url=http://127.0.0.1:9/v1", f"api_key_env={KEY}"],
        ["eval", "{yaml}", "backend=openai", "base_url=http://h/v1", f"extra_body={{a: [{{api_key: {KEY}}}]}}"],
        ["eval", "{yaml}", "backend=openai", "base_url=http://h/v1", f"extra_body={{user: {SK}}}"],
        ["eval", "{yaml}", "backend=openai", f"base_url=http://h/{SK}/v1"],
        ["eval", "{yaml}", f"api_key={KEY}"],
        ["eval", "{yaml}", SK],
        ["eval", "{yaml}", KEY],
        ["eval", "{yaml}", f"{KEY}=1"],
        ["eval", "{yaml}", f"batch_size={KEY}"],
        ["eval", "{yaml}", f"prompt_style={KEY}"],
        ["eval", "{yaml}", "backend=openai", f"base_url=http://bob:{KEY[:8]}/{KEY[8:]}@127.0.0.1:9/v1"],
        ["eval", "{yaml}", "backend=openai", f"base_url=http://127.0.0.1:{KEY}/v1"],
        ["eval", "{yaml}", "backend=openai", f"base_url=http://[{KEY}/v1"],
        ["eval", "{yaml}", f"{SK}=1"],
        ["eval", "{yaml}", f"headers={{Authorization: Bearer {KEY}}}"],
        ["eval", "{yaml}", "batch_size=[", f"api_key={KEY}"],
        ["eval", "{secret}"],
        ["synthesize", "{yaml}", f"teacher={{model: m, api_key: {KEY}}}"],
        ["synthesize", "{yaml}", f"teacher={{model: m, parameters: {{extra_headers: {{x-api-key: {KEY}}}}}}}"],
        ["report", "--api-key", KEY, "--out", "x"],
        ["prepare", f"--token={KEY}"],
        [KEY, f"--api-key={KEY}"],
    ],
)  # fmt: skip
def test_a_key_in_a_wrong_place_is_refused_and_never_printed(argv, tmp_path, capsys, caplog):
    (tmp_path / "c.yaml").write_text(f"output_dir: {tmp_path}/out\nsplits: {{id: none.jsonl}}\nmodel_name_or_path: m\n")
    (tmp_path / "secret.yaml").write_text(f"output_dir: x\nfps: [1\napi_key: {KEY}\n")
    places = {"{yaml}": str(tmp_path / "c.yaml"), "{secret}": str(tmp_path / "secret.yaml")}
    try:
        code = cli.main([places.get(word, word) for word in argv])
    except SystemExit as error:
        code = error.code
    except Exception as error:  # noqa: BLE001  # as the interpreter would show it
        code = 1
        sys.excepthook(type(error), error, error.__traceback__)
    shown = capsys.readouterr()
    assert code not in (0, None) and shown.err
    for key in (KEY, SK):
        assert parts_of(key, shown.out + shown.err + caplog.text) == []
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.glob("out/**/*") if path.is_file())


@pytest.mark.parametrize("keeps_files", [True, False])
def test_what_is_shown_may_be_lost_where_the_results_are_files(keeps_files, monkeypatch, capsys):
    with Path("/dev/full").open("w", encoding="utf-8", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        with redacted_output([], keeps_files=keeps_files):
            for _ in range(2):
                if keeps_files:
                    sys.stdout.write("step 1/2\n")
                else:
                    with pytest.raises(OSError, match="standard output"):
                        sys.stdout.write("accuracy 1.0\n")
        monkeypatch.undo()
    said = capsys.readouterr().err
    assert said.count("standard output cannot be written any more (No space left on device)") == int(keeps_files)


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch, capsys):
    with Path("/dev/full").open("w", encoding="utf-8", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        with redacted_output([]):
            sys.stderr.write("a word\n")
            logging.getLogger("x").warning("a line")
            sys.stdout.write("result\n")
        monkeypatch.undo()
    assert capsys.readouterr().out == "result\n"
