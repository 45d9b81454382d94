from __future__ import annotations

from spanseal_collector.clock import Clock


class Times:
    def __init__(self) -> None:
        self.wall = 1_000_000_000_000
        self.monotonic = 5

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.monotonic)

    def pass_by(self, nanoseconds: int, jump: int = 0) -> None:
        self.wall += nanoseconds + jump
        self.monotonic += nanoseconds


def test_small_steps_back_do_not_show() -> None:
    times = Times()
    clock = times.clock()
    first, _ = clock.read()
    times.pass_by(1_000, jump=-500_000_000)
    second, jump = clock.read()
    assert (second, jump) == (first, None)


def test_jumps_are_told_once() -> None:
    times = Times()
    clock = times.clock()
    times.pass_by(10, jump=-2_000_000_000)
    now, jump = clock.read()
    assert now == times.wall
    assert jump == -2.0
    assert clock.read() == (times.wall, None)
    times.pass_by(10, jump=301_000_000_000)
    assert clock.read() == (times.wall, 301.0)


def test_a_slow_drift_forward_within_the_limit_is_no_jump() -> None:
    times = Times()
    clock = times.clock()
    times.pass_by(10, jump=299_000_000_000)
    assert clock.read() == (times.wall, None)
