from __future__ import annotations

import re

import pytest

from tests.growth import assert_grows_linearly


def test_quadratic_work_is_found_and_linear_work_passes():
    assert_grows_linearly(lambda text: [ord(letter) for letter in text], "1" * 20000)
    with pytest.raises(AssertionError, match="20000 characters take"):
        assert_grows_linearly(lambda text: re.search("1+x", text), "1" * 20000)
