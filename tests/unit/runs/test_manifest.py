"""Damage of a checkpoint is found: files that are gone, cut short, or hold other bytes than were written."""

from __future__ import annotations

import json

import pytest

from video_thinker.runs.manifest import MANIFEST, find_damage, write_manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "global_step2").mkdir()
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "global_step2" / "optimizer.pt").write_bytes(bytes(5000))
    (tmp_path / "README.md").write_text("card")
    write_manifest(tmp_path)
    return tmp_path


def flip(path, place=1234):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_whole_folder_has_no_damage_and_each_file_is_listed_with_size_and_checksum(folder):
    assert find_damage(folder) is None
    listed = json.loads((folder / MANIFEST).read_text())
    assert set(listed) == {"model.safetensors", "global_step2/optimizer.pt"}
    assert listed["global_step2/optimizer.pt"]["bytes"] == 5000


@pytest.mark.parametrize("name", ["model.safetensors", "global_step2/optimizer.pt"])
def test_one_flipped_bit_is_found_and_named(folder, name):
    flip(folder / name)
    assert f"the bytes of {name} are not those that were written" == find_damage(folder)
    assert find_damage(folder, with_bytes=False) is None


def test_zeros_of_the_right_size_are_found(folder):
    (folder / "model.safetensors").write_bytes(bytes(256 * 64))
    assert "model.safetensors" in (find_damage(folder) or "")


def test_processes_share_the_checksums_and_one_of_them_finds_the_damage(folder):
    flip(folder / "model.safetensors")
    found = [find_damage(folder, share=(rank, 3)) for rank in range(3)]
    assert sum(damage is not None for damage in found) == 1


def test_what_is_gone_or_cut_short_is_named_without_reading_bytes(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    assert find_damage(folder, with_bytes=False) == "model.safetensors has 16381 of 16384 bytes"
    path.unlink()
    assert find_damage(folder) == "model.safetensors is missing"
    (folder / MANIFEST).unlink()
    assert find_damage(folder) == "no files.json, so it was never finished"


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b"{}", b"\xff\xfe", b"3", b'{"a": "b"}', b'{"a": [1]}', b'{"a": nu']
)
def test_a_damaged_list_is_damage(folder, content):
    (folder / MANIFEST).write_bytes(content)
    assert MANIFEST in (find_damage(folder) or "")


def test_a_list_of_an_earlier_version_has_sizes_alone(folder):
    (folder / MANIFEST).write_text(json.dumps({"model.safetensors": 16384, "global_step2/optimizer.pt": 5000}))
    flip(folder / "model.safetensors")
    assert find_damage(folder) is None
    (folder / "model.safetensors").write_bytes(b"")
    assert find_damage(folder) == "model.safetensors has 0 of 16384 bytes"


def test_a_card_that_is_written_anew_is_no_damage(folder):
    (folder / "README.md").write_text("card with results")
    assert find_damage(folder) is None


def test_a_file_that_cannot_be_read_is_damage(folder, monkeypatch):
    def refuse(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("video_thinker.runs.manifest.checksum", refuse)
    assert "cannot be read: the disk has an I/O error" in (find_damage(folder) or "")
