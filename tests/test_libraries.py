"""What users' code prints goes to stderr, however many threads run it, and the streams are as before afterwards."""

import sys
import threading

import pytest

from gainfinder.libraries import printed_to_stderr


def test_two_threads_that_overlap_leave_the_streams_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    stdout = sys.stdout
    inside, leave = threading.Event(), threading.Event()

    def load() -> None:
        with printed_to_stderr():
            print("loading")
            inside.set()
            leave.wait()

    thread = threading.Thread(target=load)
    with printed_to_stderr():
        thread.start()
        inside.wait()
        print("running")
    print("still loading")  # the other thread is inside
    leave.set()
    thread.join()
    assert sys.stdout is stdout
    print("result")
    assert capsys.readouterr() == ("result\n", "loading\nrunning\nstill loading\n")
