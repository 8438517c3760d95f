"""Names of models: on disk first, then one try at the hub, and names that are alike."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from video_thinker.errors import ConfigError, WriteError
from video_thinker.models import names
from video_thinker.models.names import check_model_name


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with a checkpoint, an adapter and an empty folder."""
    for name, file in (("runs/quickstart/sft", "config.json"), ("runs/quickstart/lora", "adapter_config.json")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / file).write_text("{}")
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    check_model_name.cache_clear()
    yield tmp_path
    check_model_name.cache_clear()


@pytest.fixture
def hub(monkeypatch):
    """A hub that answers with what is put there; it counts how often it is asked."""
    asked = []

    def answer(url, **options):
        asked.append((url, options))
        if isinstance(answer.with_, Exception):
            raise answer.with_

    answer.with_, answer.asked = None, asked
    monkeypatch.setattr(names, "get_hf_file_metadata", answer)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return answer


@pytest.mark.parametrize("name", ["runs/quickstart/sft", "./runs/quickstart/lora"])
def test_a_folder_is_taken_without_asking_anybody(name, hub):
    check_model_name(name)
    assert not hub.asked


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("runs/qickstart/sft", "there is no such folder.*there is runs/quickstart/sft"),
        ("runs/quickstart/stf", "there is no such folder.*there is runs/quickstart/sft"),
        ("runs/quickstart", "holds no checkpoint.*there is runs/quickstart/lora or runs/quickstart/sft"),
        ("mine/sft", "there is no such folder"),  # like a hub name, in a folder that is here
        ("mine", "holds no checkpoint"),
        ("a name", "there is no such folder"),
        ("~/none", "there is no such folder"),
    ],
)
def test_what_looks_like_a_folder_is_not_asked_of_the_hub(name, found, hub):
    with pytest.raises(ConfigError, match=f"no config.json there.*{found}"):
        check_model_name(name)
    assert not hub.asked


def test_the_hub_is_asked_once_and_in_seconds(hub):
    hub.with_ = socket.gaierror("Name or service not known")
    with pytest.raises(
        ConfigError, match=r"neither a folder here .*cannot be reached: Name or service.*7B-Instruct"
    ) as e:
        check_model_name("Qwen/Qwen2.5-VL-7B-Instuct")
    assert "\n" not in str(e.value)
    ((_, options),) = hub.asked
    assert options["timeout"] <= 15 and not options["retry_on_errors"]


def test_a_model_of_the_hub(hub):
    check_model_name("owner/there")
    check_model_name("owner/there")
    assert len(hub.asked) == 1
    hub.with_ = EntryNotFoundError("no")
    with pytest.raises(ConfigError, match="without a config.json"):
        check_model_name("owner/dataset")


def test_a_cached_model_is_used_where_the_hub_is_away(hub, monkeypatch):
    monkeypatch.setattr(names, "try_to_load_from_cache", lambda name, file: "/cache/config.json")
    hub.with_ = OSError("no route to host")
    check_model_name("owner/cached")
    assert constants.HF_HUB_OFFLINE  # so that its other files do not wait for the hub


def test_offline(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set, and it is not in the hub's cache"):
        check_model_name("owner/unknown")
    assert not hub.asked


def refused(kind: type[HfHubHTTPError]) -> HfHubHTTPError:
    return kind("the hub says no", response=SimpleNamespace(headers={}, request=None, status_code=404))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatedRepoError, "its owner must let you in first"),
        (RepositoryNotFoundError, "the hub has no model of this name"),
        (HfHubHTTPError, "the hub answers the hub says no"),
    ],
)
def test_what_the_hub_answers_is_said_and_a_cached_model_is_used_all_the_same(hub, monkeypatch, error, words):
    hub.with_ = refused(error)
    with pytest.raises(ConfigError, match=words):
        check_model_name("owner/refused")
    monkeypatch.setattr(names, "try_to_load_from_cache", lambda name, file: "/cache/config.json")
    check_model_name("owner/kept")
    assert not constants.HF_HUB_OFFLINE  # the hub is there


def test_an_adapter_of_the_hub_is_found_by_its_second_file(hub, monkeypatch):
    asked = []

    def answer(url, **options):
        asked.append(url)
        if url.endswith("/config.json"):
            raise EntryNotFoundError("no")

    monkeypatch.setattr(names, "get_hf_file_metadata", answer)
    check_model_name("owner/adapter")
    assert len(asked) == 2 and asked[1].endswith("adapter_config.json")


def test_offline_a_cached_model_is_used_without_asking(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(names, "try_to_load_from_cache", lambda name, file: "/cache/config.json")
    check_model_name("owner/cached")
    assert not hub.asked


def test_a_cached_model_that_the_hub_has_no_more_is_used(hub, monkeypatch):
    monkeypatch.setattr(names, "try_to_load_from_cache", lambda name, file: "/cache/config.json")
    hub.with_ = EntryNotFoundError("no")
    check_model_name("owner/cached")
    assert hub.asked  # it was looked for there, and the cache was enough


def test_a_cache_of_the_hub_that_cannot_be_written_is_said_before_anything_is_downloaded(hub, folder, monkeypatch):
    (folder / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "file" / "hub"))
    monkeypatch.setattr(names, "try_to_load_from_cache", lambda name, file: None)
    with pytest.raises(WriteError, match=r"file/hub: .*a file is where a folder is wanted.*choose another HF_HOME"):
        check_model_name("Qwen/Qwen2.5-VL-3B-Instruct")
    monkeypatch.setattr(names, "try_to_load_from_cache", lambda name, file: str(folder))
    check_model_name("Qwen/Qwen2.5-VL-3B-Instruct")
