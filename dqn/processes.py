"""Child processes: they leave the terminal's signals to the run, and they end when the run's process does."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SET_PDEATHSIG = 1  # of Linux's prctl


@contextmanager
def ignore_signals() -> Iterator[None]:
    """Processes started here never see Ctrl-C, SIGTERM or SIGHUP, which reach every process of a terminal.

    The signals are blocked, which a child inherits, and not lost: one that comes meanwhile ends the children that have
    been started, so that nobody waits for them, and reaches this process when the block ends.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers are the main thread's
        yield
        return
    if not hasattr(signal, "sigtimedwait"):  # macOS and Windows: signals are lost meanwhile
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return
    # The first child of a process starts multiprocessing's tracker, which unblocks SIGINT and SIGTERM behind it: it is
    # started here, or the first child would hear them.
    resource_tracker.ensure_running()
    before = multiprocessing.active_children()
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    done, caught = threading.Event(), list[int]()

    def watch() -> None:
        while not done.is_set():
            if (found := signal.sigtimedwait(SIGNALS, 0.1)) is not None:
                caught.append(found.si_signo)
            if caught:
                kill_children(before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        if caught:
            kill_children(before)  # those that have been started since
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)
        for number in caught[:1]:
            signal.raise_signal(number)


def kill_children(spared: Sequence[Any] = ()) -> None:
    """End every process that this one has started with multiprocessing, whatever it does at the moment."""
    for process in multiprocessing.active_children():
        if process not in spared:
            process.kill()


def end_with_parent() -> None:
    """In a child process: end when its parent is gone, even by SIGKILL, and even if the child hangs (on Linux)."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL)
    sentinel = parent.sentinel  # pyright: ignore[reportAttributeAccessIssue]  # every process has one

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
