"""The present, and whether what is told to be the present can be trusted."""

import time

import pytest

from tallybook.clock import Steadiness

HOUR_S = 3_600
DAY_S = 86_400
BOOTED_S = 1_767_225_600


class Machine:
    """A machine's two clocks: one that anybody may put elsewhere, and the time since it was booted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s = 0
        self.up_s = 0
        monkeypatch.setattr(time, "monotonic", lambda: float(self.up_s))
        monkeypatch.setattr(time, "time", lambda: float(BOOTED_S + self.up_s + self.ahead_s))


def test_a_clock_that_was_put_elsewhere_is_trusted_when_it_has_gone_steadily_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch)
    clock = Steadiness(HOUR_S, DAY_S)
    assert clock.is_given()
    machine.up_s += 40 * DAY_S
    assert clock.is_given()
    for jump_s in (400 * DAY_S, -400 * DAY_S, HOUR_S + 1):
        machine.ahead_s += jump_s
        assert not clock.is_given()
        machine.up_s += DAY_S - 1
        assert not clock.is_given()
        machine.up_s += 1
        assert clock.is_given()


def test_a_clock_that_is_set_right_a_little_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    clock = Steadiness(HOUR_S, DAY_S)
    machine.ahead_s = HOUR_S
    assert clock.is_given()
    machine.ahead_s = -HOUR_S
    assert clock.is_given()
