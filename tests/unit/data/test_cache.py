from __future__ import annotations

import pytest

from video_thinker.data.cache import DiskCache
from video_thinker.errors import ConfigError


def test_a_folder_that_is_no_folder_is_named_with_its_key(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"feature_cache_dir='.*/file/cache': no cache can be kept there"):
        DiskCache(tmp_path / "file" / "cache", 1.0, "feature_cache_dir")


def test_an_entry_that_cannot_be_decoded_is_made_again_and_said_once(tmp_path, caplog):
    cache = DiskCache(tmp_path, 1.0, "frame_cache_dir")
    cache.set(("a",), b"damaged", "frames")

    def decode(stored):
        raise ValueError(f"{stored!r} is damaged")

    assert cache.get(("a",), "entry a", decode) is None and cache.get(("a",), "entry a", decode) is None
    assert caplog.text.count("frame_cache_dir: entry a cannot be read (b'damaged' is damaged)") == 1
    assert cache.get(("a",), "entry a") == b"damaged" and cache.get(("b",), "entry b") is None
