"""Work that gives way to the requests that are answered meanwhile."""

import concurrent.futures
import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

_NICENESS = 10  # A tenth of a core where all cores are wanted, and what is left where they are not.

_Result = TypeVar("_Result")


def in_background(function: Callable[[], _Result]) -> _Result:
    """What a function returns that runs in a thread of low priority.

    A thread cannot raise its priority again, so it is one for this alone. It ends with the process,
    and where threads have no priority of their own (only on Linux they do) it has that of others.
    """

    def run() -> _Result:
        _lower_priority()
        return function()

    return in_thread(run).result()


def in_thread(function: Callable[[], _Result]) -> concurrent.futures.Future[_Result]:
    """What a function will return that runs in a thread of its own, which ends with the process."""
    answer: concurrent.futures.Future[_Result] = concurrent.futures.Future()

    def run() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, name="background", daemon=True).start()
    return answer


def _lower_priority() -> None:
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
