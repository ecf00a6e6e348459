from levit_batch.errors import JobError, brief, causes
from pipelines.interrupt import Interrupted, interrupted


class Wrapped(Exception):
    """As Ray hands on what a task raised."""

    def __init__(self, cause):
        super().__init__("worker failed")
        self.cause = cause


def test_one_line_of_an_error():
    assert brief(ValueError("a\n  b\tc")) == "a b c" and brief(ValueError()) == "ValueError" and brief("x" * 900, 5) == "xxxxx"


def test_all_that_led_to_an_error():
    ours = JobError("ours")
    try:
        try:
            raise Interrupted
        except Interrupted:
            raise Wrapped(ours) from OSError("disk")
    except Wrapped as e:
        assert [type(cause) for cause in causes(e)] == [Wrapped, OSError, JobError, Interrupted] and interrupted(e)
    ours.__context__ = ours.__cause__ = e = OSError()
    e.__context__ = ours
    assert list(causes(ours)) == [ours, e] and not list(causes(None)) and not interrupted(ours)
