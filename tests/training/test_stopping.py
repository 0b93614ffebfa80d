import os
import signal
import threading

import pytest

from genrec.errors import Stopped
from training.stopping import sigterm_noted, stopped_by_sigterm


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_the_block_where_it_stands_with_143() -> None:
    with pytest.raises(Stopped, match="stopped by SIGTERM") as caught, stopped_by_sigterm():
        terminate()
        raise AssertionError("unreached")
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_within_it_may_be_noted_until_it_suits() -> None:
    with stopped_by_sigterm():
        with sigterm_noted() as came:
            assert not came()
            terminate()
            assert came()
        with pytest.raises(Stopped):
            terminate()


def test_another_thread_than_the_main_one_takes_no_signals() -> None:
    seen = []

    def work() -> None:
        with sigterm_noted() as came:
            seen.append(came())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
