import os
import sys
import threading

import pytest

from ctr_keras.serving.server.background import in_background


def niceness():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_result_and_error_come_back():
    assert in_background(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 / 0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority")
def test_only_the_thread_in_the_background_is_lowered():
    before = niceness()
    assert in_background(niceness) == min(before + 10, 19)
    assert niceness() == before
