"""What may go wrong with a cache on disk (`diskcache`), and must not end a run. Runs without torch."""

from __future__ import annotations

import pickle
import sqlite3

import diskcache

STORE_ERRORS = (OSError, sqlite3.Error, diskcache.Timeout)
"""A store that is full or busy slows a run down; it does not end it."""

UNREADABLE = (*STORE_ERRORS, pickle.UnpicklingError, EOFError, ValueError)
"""And neither does an entry that a lost machine has left half written."""
