from __future__ import annotations

import errno
import io
import pickle
import sys
from contextlib import redirect_stderr
from types import ModuleType

import pytest

from video_thinker import cli
from video_thinker.errors import DecodeError, MediaMemoryError, NotEnoughMemoryError, TeacherError, WriteError
from video_thinker.memory import KINDS, is_out_of_memory, kind_of, memory_errors


class OutOfMemoryError(RuntimeError):
    """As torch's, by its name."""


KILLED = "DataLoader worker (pid 4711) is killed by signal: Killed. "


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "host"),
        (MediaMemoryError("a.mp4: not enough memory to decode it"), "host"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "host"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), "host"),
        (RuntimeError("std::bad_alloc"), "host"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "gpu"),
        (OutOfMemoryError("Allocation on device 0 would exceed allowed memory."), "gpu"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be …"), "gpu"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "gpu"),
        (ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"), "gpu"),
        (RuntimeError(KILLED), "worker"),
        (caused(RuntimeError("DataLoader worker (pid(s) 4711) exited unexpectedly"), RuntimeError(KILLED)), "worker"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Bus error. It is possible that …"), "shared"),
        (RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"), "shared"),
        (RuntimeError("DataLoader worker (pid 4711) is killed by signal: Segmentation fault. "), None),
        (RuntimeError("DataLoader worker (pid(s) 4711) exited unexpectedly"), None),
        (OSError(errno.ENOSPC, "No space left on device"), None),
        (TeacherError("the server says: CUDA out of memory"), None),
        (caused(DecodeError("a.mp4: cannot decode"), MemoryError()), None),
        (KeyboardInterrupt("std::bad_alloc"), None),
    ],
)
def test_what_is_want_of_memory(error, kind):
    assert kind_of(error) == kind
    assert is_out_of_memory(error) == (kind is not None)


def run_command(monkeypatch, name: str, error: Exception) -> tuple[int, str]:
    """Run a command that raises, and give its exit code and what it says."""
    module = ModuleType("fails")

    def main(argv):
        raise error

    module.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fails", module)
    monkeypatch.setitem(cli.COMMANDS, name, ("fails", ""))
    monkeypatch.setattr(cli, "check_first", lambda name, argv: True)
    with redirect_stderr(io.StringIO()) as said:
        return cli.main([*name.split(), "x.yaml"]), said.getvalue()


@pytest.mark.parametrize("name", list(cli.COMMANDS))
@pytest.mark.parametrize("error", [MemoryError(), OutOfMemoryError("CUDA out of memory."), RuntimeError(KILLED)])
def test_every_command_says_it_in_one_message(monkeypatch, name, error):
    code, said = run_command(monkeypatch, name, error)
    assert code == 2
    assert said.strip().count("\n") == 0 and said.startswith(f"\nNotEnoughMemoryError: {name}: ")
    assert KINDS[str(kind_of(error))] in said and "No file, sample or answer is at fault" in said


@pytest.mark.parametrize(
    ("name", "error", "knob"),
    [
        ("sft", OutOfMemoryError("CUDA out of memory."), "per_device_train_batch_size"),
        ("grpo", OutOfMemoryError("CUDA out of memory."), "max_tokens_per_forward"),
        ("grpo", RuntimeError(KILLED), "dataloader_num_workers"),
        ("eval", OutOfMemoryError("CUDA out of memory."), "batch_size, max_frames, max_pixels or max_new_tokens"),
        ("eval", MemoryError(), "num_processes"),
        ("ask", MemoryError(), "--max-frames"),
        ("sft", RuntimeError("x is killed by signal: Bus error."), "dataloader_num_workers=0.*--shm-size"),
    ],
)
def test_the_keys_of_the_command_are_named(monkeypatch, name, error, knob):
    with pytest.raises(NotEnoughMemoryError, match=knob), memory_errors(name):
        raise error


def test_a_files_want_of_memory_keeps_its_message_and_other_errors_are_left_alone():
    with pytest.raises(MediaMemoryError, match="^a.mp4: not enough memory$"), memory_errors("eval"):
        raise MediaMemoryError("a.mp4: not enough memory")
    with pytest.raises(RuntimeError, match="^something else$"), memory_errors("eval"):
        raise RuntimeError("something else")


def in_worker(error: Exception) -> Exception:
    """Give the error as PyTorch raises it in the main process."""
    from torch._utils import ExceptionWrapper

    try:
        raise error from KeyError("the cause")
    except type(error):
        wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
    try:
        wrapper.reraise()
    except type(error) as found:
        return found
    raise AssertionError


@pytest.mark.parametrize("kind", [DecodeError, MediaMemoryError, WriteError])
def test_an_error_of_a_data_worker_has_its_own_message_only(kind):
    message = "a.mp4: cannot decode (sample 'v1': ValueError: video_thinker.errors.DecodeError); fix the file."
    found = in_worker(kind(message))
    assert type(found) is kind and str(found) == message
    assert str(pickle.loads(pickle.dumps(found))) == message


def test_a_workers_memory_error_is_said_in_one_line():
    with pytest.raises(NotEnoughMemoryError) as caught, memory_errors("sft"):
        raise in_worker(MemoryError("Unable to allocate 3.1 GiB"))
    assert "Traceback" not in str(caught.value) and "\n" not in str(caught.value)
    assert "Unable to allocate 3.1 GiB" in str(caught.value)
