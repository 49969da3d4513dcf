"""A thread is waited for to its end, whatever interrupts the waiting."""

import signal
import threading
import time

import pytest

from emsr_fast.infer.background import BackgroundConsumer, produced_ahead
from emsr_fast.threads import Thread


class Stop(BaseException):
    pass


@pytest.fixture
def signal_to_main():
    """Return a function that lets a signal raise ``Stop`` in the main thread."""

    def stop(number, frame):
        raise Stop

    before = signal.signal(signal.SIGUSR1, stop)
    yield lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def interrupted_work(send, ended):
    """Interrupt the main thread, which waits for this work, and go on for a while."""
    time.sleep(0.1)
    send()
    time.sleep(0.3)
    ended.append(True)


def test_waiting_that_a_signal_interrupts_goes_on_to_the_end_of_the_thread(signal_to_main):
    ended = []
    thread = Thread(lambda: interrupted_work(signal_to_main, ended), "test")
    with pytest.raises(Stop):
        thread.wait()
    assert ended
    thread.wait()
    assert thread.ends_within(0)


def test_an_item_being_worked_on_is_done_before_the_interruption_is_raised(signal_to_main):
    ended = []
    behind = BackgroundConsumer(lambda item: interrupted_work(signal_to_main, ended), 1)
    behind.give(1)
    with pytest.raises(Stop):
        behind.finish()
    behind.stop()
    assert ended


def test_the_reader_has_ended_before_the_interruption_is_raised(signal_to_main):
    ended = []

    def items():
        yield 1
        interrupted_work(signal_to_main, ended)
        yield 2

    with pytest.raises(Stop), produced_ahead(items(), 1) as produced:
        next(produced)
    assert ended


def test_a_short_wait_says_whether_the_thread_has_ended():
    go = threading.Event()
    thread = Thread(go.wait, "test", daemon=True)
    assert not thread.ends_within(0.01)
    go.set()
    assert thread.ends_within(60)
