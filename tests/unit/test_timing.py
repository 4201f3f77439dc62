"""The breakdown of a rank's time."""

import time

import pytest

from hpcddrl.logs.schema import COLUMNS
from hpcddrl.logs.timing import Phase, Timing


@pytest.fixture
def clock(monkeypatch):
    """Return a function that lets time pass."""
    now = {"wall": 100.0, "cpu": 10.0}
    monkeypatch.setattr("hpcddrl.logs.timing.time.perf_counter", lambda: now["wall"])
    monkeypatch.setattr("hpcddrl.logs.timing.time.process_time", lambda: now["cpu"])

    def spend(wall, cpu=0.0):
        now["wall"] += wall
        now["cpu"] += cpu

    return spend


def spent(timing):
    return {str(phase): seconds for phase, seconds in timing.totals().items() if seconds}


def test_a_phase_inside_another_pauses_the_outer_one(clock):
    timing = Timing()
    clock(1)
    with timing(Phase.COLLECT):
        clock(2)
        with timing(Phase.ACT):
            clock(4)
            with timing(Phase.WAIT):
                clock(8)
            clock(16)
        clock(32)
        with timing(Phase.ACT):
            clock(64)
    clock(128)
    assert spent(timing) == {"other": 129, "collect": 34, "act": 84, "wait": 8}


def test_a_phase_inside_itself_counts_once(clock):
    timing = Timing()
    with timing(Phase.ENV):
        clock(1)
        with timing(Phase.ENV):
            clock(2)
        clock(4)
    assert spent(timing) == {"env": 7}


def test_an_exception_ends_its_phase(clock):
    timing = Timing()

    def fail():
        with timing(Phase.LOG), timing(Phase.SEND):
            clock(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    clock(5)
    assert spent(timing) == {"send": 3, "other": 5}


def test_totals_may_be_asked_for_inside_a_phase(clock):
    timing = Timing()
    with timing(Phase.BATCH):
        clock(2)
        assert spent(timing) == {"batch": 2}
        clock(3)
    assert spent(timing) == {"batch": 5}


def test_blocks_are_counted_and_squared_without_those_inside_them(clock):
    timing = Timing()
    for seconds in (1, 2):
        with timing(Phase.COLLECT):
            clock(seconds)
            for _ in range(3):
                with timing(Phase.ACT):
                    clock(4)
            timing.totals()
            clock(seconds)
    assert {str(phase): count for phase, count in timing.events.items() if count} == {"collect": 2, "act": 6}
    assert timing.squares[Phase.COLLECT] == 2**2 + 4**2
    assert timing.squares[Phase.ACT] == 6 * 4**2
    assert timing.squares[Phase.OTHER] == 0


def test_a_block_counts_when_it_ends(clock):
    timing = Timing()
    with timing(Phase.BATCH):
        clock(3)
        assert timing.events[Phase.BATCH] == 0
    assert (timing.events[Phase.BATCH], timing.squares[Phase.BATCH]) == (1, 9)


def test_processor_time_is_that_of_waiting_alone(clock):
    timing = Timing()
    clock(1, cpu=1)
    with timing(Phase.WAIT):
        clock(1, cpu=2)
        with timing(Phase.REFRESH):
            clock(1, cpu=4)
        clock(1, cpu=8)
        with timing(Phase.WAIT):
            clock(1, cpu=16)
    clock(1, cpu=32)
    assert timing.wait_cpu_s == 26


def test_the_phases_sum_to_the_wall_time():
    before = time.perf_counter()
    timing = Timing()
    started = time.perf_counter()
    for phase in [*Phase] * 20:
        with timing(phase), timing(Phase.WAIT):
            pass
        with timing(phase):
            time.sleep(1e-4)
    ending = time.perf_counter()
    total = sum(timing.totals().values())
    assert ending - started - 1e-9 <= total <= time.perf_counter() - before + 1e-9
    assert all(seconds >= 0 for seconds in timing.seconds.values())


def test_every_phase_has_a_column():
    assert {f"{table}/{phase}" for table in ("timing", "events", "squares") for phase in Phase} <= set(COLUMNS)
