import os
import threading

import pytest

from tenon.util.cores import roam

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be pinned here")


def masks_of_threads(*targets):
    masks = []
    for target in targets:
        thread = threading.Thread(
            target=lambda target=target: (target(), masks.append(os.sched_getaffinity(0)))
        )
        thread.start()
        thread.join()
    return masks


def test_a_thread_of_a_pinned_one_may_leave_its_core():
    def pinned():
        one = {min(allowed)}
        os.sched_setaffinity(0, one)
        assert masks_of_threads(lambda: None, roam) == [one, allowed]
        done.append(True)

    allowed, done = os.sched_getaffinity(0), []
    masks_of_threads(pinned)
    assert done
