"""Threads of ranks that share processors."""

import pytest

from hpcddrl.comm.placement import Role
from hpcddrl.runtime.processors import Costs, is_open, threads

ACTOR, LEARNER, SERVER, REPLAY = Role.ACTOR, Role.LEARNER, Role.SERVER, Role.REPLAY


@pytest.mark.parametrize(
    ("roles", "processors", "learn", "act", "expected"),
    [
        ([LEARNER, *[ACTOR] * 3], 4, 1.0, 3.0, {LEARNER: 1, ACTOR: 1}),  # one processor's work exactly
        ([LEARNER, *[ACTOR] * 3], 4, 1.0, 1.3, {LEARNER: 2, ACTOR: 1}),  # 1.74 of them
        ([LEARNER, *[ACTOR] * 3], 4, 1.1, 2.9, {LEARNER: 1, ACTOR: 1}),  # 1.1: not worth another
        ([LEARNER, *[ACTOR] * 15], 4, 1.0, 1.0, {LEARNER: 2, ACTOR: 1}),  # however many there are to act
        ([*[LEARNER] * 2, *[ACTOR] * 6], 16, 1.0, 1.0, {LEARNER: 4, ACTOR: 1}),
        ([LEARNER, ACTOR], 16, 1.0, 3.0, {LEARNER: 4, ACTOR: 12}),
        ([*[LEARNER] * 8, *[ACTOR] * 8], 4, 1.0, 1.0, {LEARNER: 1, ACTOR: 1}),
        ([LEARNER, REPLAY, ACTOR, ACTOR], 8, 3.0, 1.0, {LEARNER: 6, REPLAY: 1, ACTOR: 1}),
        ([LEARNER] * 4, 8, 1.0, 1.0, {LEARNER: 2}),  # each steps its own environments
        ([SERVER, *[LEARNER] * 3], 4, 1.0, 1.0, {SERVER: 1, LEARNER: 1}),
        ([ACTOR] * 3, 6, 1.0, 1.0, {ACTOR: 2}),  # the learner is elsewhere
    ],
)
def test_learners_get_what_learning_is_of_the_work(roles, processors, learn, act, expected):
    assert threads(roles, processors, Costs(learn, act)) == expected


@pytest.mark.parametrize("learn", [0.1, 0.5, 1.0, 2.0, 7.0])
@pytest.mark.parametrize("processors", [1, 3, 4, 16, 64])
def test_a_learner_that_has_its_threads_keeps_up_but_for_the_slack(processors, learn):
    given = threads([LEARNER, *[ACTOR] * (processors + 3)], processors, Costs(learn, 1.0))
    steps = processors / (learn + 1.0)  # a second, if all are busy
    assert steps * learn <= given[LEARNER] + 0.15 + 1e-9
    assert 1 <= given[LEARNER] <= processors
    assert given[ACTOR] == 1


@pytest.mark.parametrize(
    ("roles", "processors", "expected"),
    [
        ([LEARNER, *[ACTOR] * 3], 4, True),
        ([*[LEARNER] * 8, *[ACTOR] * 8], 4, False),
        ([LEARNER, ACTOR], 1, False),
        ([LEARNER] * 4, 8, False),
        ([SERVER, ACTOR], 8, False),
    ],
)
def test_nothing_is_timed_where_it_could_not_matter(roles, processors, expected):
    assert is_open(roles, processors) is expected
    if not expected:
        assert threads(roles, processors, Costs(1.0, 9.0)) == threads(roles, processors, Costs(9.0, 1.0))
