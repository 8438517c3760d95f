"""What may go wrong with a cache on disk (`diskcache`), and must not end a run. Runs without torch."""

from __future__ import annotations

import pickle

from video_thinker.disk import STORE_ERRORS

UNREADABLE = (*STORE_ERRORS, pickle.UnpicklingError, EOFError, ValueError)
"""And neither does an entry that a lost machine has left half written."""
