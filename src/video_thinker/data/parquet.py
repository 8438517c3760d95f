"""Parquet files -> raw rows, beside the JSON reader of `annotations.py`. No torch here; pyarrow loads on first use.

Hugging Face publishes many annotation files as parquet only. One row becomes what the same row would be in JSON: a
struct is an object, a list is a list, a missing value is `None`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from video_thinker.errors import DataError
from video_thinker.memory import is_out_of_memory

MAGIC = b"PAR1"
ROWS_AT_A_TIME = 1024


def is_parquet(path: Path) -> bool:
    """Say whether a file is parquet, by its first bytes; its name does not count."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Give the rows of a parquet file, some at a time. Columns of bytes (pictures, videos) are left out.

    Raises:
        DataError: the file is cut off or broken.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = [field.name for field in file.schema_arrow if not _is_binary(field.type)]
            for batch in file.iter_batches(batch_size=ROWS_AT_A_TIME, columns=columns):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: {reason}; the parquet file cannot be read to its end; download it again.") from error


def _is_binary(kind: Any) -> bool:
    """Say whether a column holds bytes, or objects with bytes such as the {bytes, path} of pictures."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(_is_binary(kind.field(index).type) for index in range(kind.num_fields))
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_binary(kind.value_type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))
