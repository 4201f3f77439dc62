"""What a learner makes of the other groups' networks, without MPI."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcddrl.comm.exchange import Arrived
from hpcddrl.config import BestGroupMixing, CyclicBeta, Ensemble, PlateauBeta, SoftmaxMixing, WarmUpBeta
from hpcddrl.logs.schema import COLUMNS
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.flat import architecture, flatten
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.rl.policies import Categorical
from hpcddrl.roles.ensemble import EnsemblePeers
from hpcddrl.roles.meetings import Meetings
from hpcddrl.roles.members import Members, in_turn
from hpcddrl.roles.mixing import Mixer
from hpcddrl.roles.plateau import Plateau, Returns
from hpcddrl.runtime.coupling import share_for, weigh_for
from hpcddrl.types import Batch, Discrete, EnvSpec, Weights

SPEC = EnvSpec((5,), np.dtype(np.float32), 1, Discrete(3), 1)
R, B, GROUPS, OWN = 2, 3, 4, 1
LEADERS = [0, 2, 4, 6]
WIDTHS = [0.1, 0.1, 0.2, 0.1]  # group 2 has another network


def network(seed, group=0):
    return PolicyValueNetwork(SPEC, "mlp", WIDTHS[group], seed, Precision())


def values(seed, group=0):
    return flatten(network(seed, group)).values


class Mail:
    """Stands for the exchange: what has arrived, and what was posted."""

    gone = frozenset()

    def __init__(self):
        self.scores = []
        self.arrived, self.posted, self.skipped, self.nbytes, self.looked = [], [], 0, 0, 0

    def bring(self, group, version, seed, flat=None, arch=None, score=np.nan):
        known = architecture(network(0, group)) if arch is None else arch
        flat = values(seed, group).numpy() if flat is None else flat
        self.arrived.append(Arrived(LEADERS[group], version, known, score, (1.0, 1.0), flat))

    def post(self, weights, score, tuning, to):
        self.scores.append(score)
        self.posted.append((weights.version, to))

    def look(self):
        self.looked += 1

    def take(self, use):
        arrived, self.arrived = self.arrived, []
        for one in arrived:
            use(one)


class Notes(dict):
    """Rows by table; every column must be in the schema."""

    def note(self, table, **row):
        assert {f"{table}/{name}" for name in row} <= set(COLUMNS)
        self.setdefault(table, []).append(row)

    @property
    def last(self):
        return self["exchange"][-1]


def peers(mail=None, learners=None, **options):
    """Return the peers of group 1 of 4, their mail, what they noted, and their clock."""
    config, notes, timing = Ensemble(**({"exchange_every": 1, "evaluate_every": 1} | options)), Notes(), Timing()
    modules = {width: network(9, WIDTHS.index(width)) for width in set(WIDTHS)}
    mail = Mail() if mail is None else mail
    control = SimpleNamespace(timing=timing, note=notes.note)
    members = Members([modules[width] for width in WIDTHS], config.q_temperature)
    line = learners or SimpleNamespace(size=1)
    made = EnsemblePeers(
        config,
        Meetings(config, members, LEADERS, OWN, mail, line, 1, False, control),
        Mixer(Categorical(3), weigh_for(config.mixing), GROUPS, OWN),
        share_for(config.schedule),
        Plateau(config.schedule) if isinstance(config.schedule, PlateauBeta) else None,
        Returns(config.mixing.window_frames) if isinstance(config.mixing, BestGroupMixing) else None,
        control,
    )
    return made, mail, notes, timing


LEARNED = Weights(1, torch.zeros(0))


def batch(steps, seed=0):
    g = torch.Generator().manual_seed(seed)
    empty = torch.zeros(steps, R * B)
    return Batch(
        torch.randn(R, steps + 1, B, 5, generator=g), empty, empty, empty, empty, empty, np.zeros(R), steps * R * B
    )


def own_opinion(targets, data, seed):
    from hpcddrl.roles.peers import opinion

    return opinion(network(seed, OWN), data, targets.rows)


def heard(made, data, seed=5):
    """Return targets and the mixture with an own network of this seed."""
    targets = made.targets(data, LEARNED)
    return targets, targets.mix(own_opinion(targets, data, seed))


def slow_mixture(data, members, temperature=1.0):
    """π_ens [T, R·B, actions] and c, state by state, from (seed, group) of each member."""
    steps = data.observation.shape[1] - 1
    mixed, weights = torch.zeros(steps, R * B, 3), torch.zeros(len(members), steps, R * B)
    for t in range(steps):
        for r in range(R):
            for b in range(B):
                with torch.no_grad():
                    outputs = [network(*member)(data.observation[r, t, b][None]) for member in members]
                powers = [torch.exp(o.value[0] / temperature) for o in outputs]
                for i, output in enumerate(outputs):
                    weights[i, t, r * B + b] = powers[i] / sum(powers)
                    mixed[t, r * B + b] += weights[i, t, r * B + b] * output.policy[0].softmax(-1)
    return mixed, weights


def test_there_are_no_targets_before_the_first_exchange():
    made, _, notes, _ = peers()
    assert made.targets(batch(4), LEARNED) is None
    made.exchange(Weights(1, values(1)))
    assert made.targets(batch(4), LEARNED) is None
    assert notes.last["peers"] == 0


def test_the_ensemble_is_the_mixture_of_what_arrived_and_the_groups_own_whatever_their_networks():
    made, mail, notes, timing = peers(mixing=SoftmaxMixing(temperature=0.5))
    mail.bring(0, 5, seed=2)
    mail.bring(2, 3, seed=3)
    made.exchange(Weights(6, values(1)))
    assert notes.last["peers"] == 2
    assert notes.last["age"] == 2.0
    data = batch(4)
    _, mixture = heard(made, data, seed=5)
    expected, weights = slow_mixture(data, [(5, OWN), (2, 0), (3, 2)], 0.5)
    torch.testing.assert_close(mixture.policy.softmax(-1), expected)
    assert mixture.own_weight == pytest.approx(float(weights[0].mean()))
    assert not mixture.policy.requires_grad
    made.exchange(Weights(7, values(1)))
    rows = {row["group"]: row for row in notes["peers"]}
    assert sorted(rows) == [0, 1, 2]
    for i, group in enumerate((OWN, 0, 2)):
        assert rows[group]["weight"] == pytest.approx(float(weights[i].mean()))
    assert [rows[group]["peer_version"] for group in (0, 1, 2)] == [5, 7, 3]
    assert rows[OWN]["divergence"] == pytest.approx(0.0, abs=1e-6)
    assert rows[0]["divergence"] > 0
    assert notes.last["kl"] > 0
    assert timing.totals()[Phase.PEERS] > 0


def test_newer_weights_take_the_place_of_older_ones():
    made, mail, _, _ = peers()
    data = batch(4)
    mail.bring(0, 5, seed=2)
    made.exchange(Weights(6, values(1)))
    mail.bring(0, 7, seed=4)
    made.exchange(Weights(8, values(1)))
    torch.testing.assert_close(heard(made, data)[1].policy.softmax(-1), slow_mixture(data, [(5, OWN), (4, 0)])[0])


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 10])
@pytest.mark.parametrize("every", [1, 2, 4])
def test_every_update_sees_some_time_steps_and_in_turn_all(steps, every):
    made, mail, _, _ = peers(evaluate_every=every)
    mail.bring(0, 0, seed=2)
    data, seen = batch(steps), set()
    for version in range(1, every + 1):
        made.exchange(Weights(version, values(1)))
        targets, mixture = heard(made, data)
        rows = range(steps)[targets.rows]
        assert len(rows) >= steps // every
        assert len(rows) > 0
        assert mixture.policy.shape == (len(rows), R * B, 3)
        seen.update(rows)
    assert seen == set(range(steps))


def test_beta_zero_asks_nobody():
    made, mail, _, timing = peers(beta=0.0)
    mail.bring(0, 1, seed=2)
    made.exchange(Weights(1, values(1)))
    assert made.targets(batch(4), LEARNED) is None
    assert timing.totals()[Phase.PEERS] == 0


def test_weights_are_exchanged_every_so_many_updates_and_looked_for_at_each():
    made, mail, notes, _ = peers(exchange_every=3)
    for version in range(1, 10):
        made.exchange(Weights(version, values(1)))
    assert [version for version, _ in mail.posted] == [3, 6, 9]
    assert mail.looked == 6
    assert [row["version"] for row in notes["exchange"]] == [3, 6, 9]
    made.exchange(Weights(12, values(1), last=True))
    assert len(mail.posted) == 3


def test_a_round_posts_to_its_partners_alone():
    made, mail, _, _ = peers(topology="ring")
    made.exchange(Weights(1, values(1)))
    assert mail.posted == [(1, [LEADERS[2]])]
    made, mail, _, _ = peers(topology="random_pairs")
    for version in range(1, 30):
        made.exchange(Weights(version, values(1)))
    assert all(len(to) == 1 for _, to in mail.posted)
    assert {to[0] for _, to in mail.posted} == {0, 4, 6}


# --- peers that are wrong, old, or too many


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_counted_and_named_once(wrong, capsys):
    made, mail, notes, _ = peers()
    mail.bring(0, 1, seed=2)
    made.exchange(Weights(1, values(1)))
    data = batch(4)
    before = heard(made, data)[1].policy
    broken = values(3).numpy().copy()
    broken[7] = wrong
    for version in (2, 3):
        mail.bring(0, version, seed=0, flat=broken)
        made.exchange(Weights(version, values(1)))
    assert torch.equal(heard(made, data)[1].policy, before)
    assert notes.last["refused"] == 2
    assert capsys.readouterr().err == "hpcddrl: group 1 refuses group 0's weights of version 2: they are not finite\n"


def test_weights_of_another_architecture_are_refused(capsys):
    made, mail, notes, _ = peers()
    mail.bring(0, 1, seed=2, arch=architecture(network(0, 2)))
    made.exchange(Weights(1, values(1)))
    assert (notes.last["peers"], notes.last["refused"]) == (0, 1)
    assert "another architecture" in capsys.readouterr().err


def test_old_weights_are_dropped_by_their_age_and_counted():
    made, mail, notes, _ = peers(max_age=3)
    mail.bring(0, 40, seed=2)
    made.exchange(Weights(1, values(1)))
    for version in (2, 3, 4):
        made.exchange(Weights(version, values(1)))
        assert (notes.last["peers"], notes.last["since"], notes.last["dropped"]) == (1, version - 1, 0)
    made.exchange(Weights(5, values(1)))
    assert (notes.last["peers"], notes.last["dropped"]) == (0, 1)
    assert made.targets(batch(4), LEARNED) is None
    mail.bring(0, 41, seed=2)
    made.exchange(Weights(6, values(1)))
    assert notes.last["peers"] == 1


def test_a_group_that_has_died_is_forgotten():
    made, mail, notes, _ = peers()
    mail.bring(0, 1, seed=2)
    mail.bring(2, 1, seed=2)
    made.exchange(Weights(1, values(1)))
    assert notes.last["peers"] == 2
    mail.gone = frozenset({LEADERS[0]})
    made.exchange(Weights(2, values(1)))
    assert notes.last["peers"] == 1


def test_without_a_bound_old_weights_are_used():
    made, mail, notes, _ = peers()
    mail.bring(0, 1, seed=2)
    for version in range(1, 50):
        made.exchange(Weights(version, values(1)))
    assert (notes.last["peers"], notes.last["since"]) == (1, 48)
    assert made.targets(batch(4), LEARNED) is not None


def test_at_most_so_many_peers_are_asked_and_all_in_turn():
    made, mail, notes, _ = peers(max_peers=2)
    for group in (0, 2, 3):
        mail.bring(group, 1, seed=group)
    data = batch(2)
    for version in range(1, 4):
        made.exchange(Weights(version, values(1)))
        heard(made, data)
    made.exchange(Weights(4, values(1)))
    asked = {v: {row["group"] for row in notes["peers"] if row["version"] == v} for v in range(2, 5)}
    assert all(len(groups) == 3 for groups in asked.values()), "two, and this group itself"
    assert set().union(*asked.values()) == {0, 1, 2, 3}


@pytest.mark.parametrize("most", [1, 2, 3, 5, 7, None])
def test_turns_are_even(most):
    groups = [1, 3, 4, 8, 9]
    turns = [in_turn(groups, most, number) for number in range(20)]
    assert all(len(turn) == len(set(turn)) == min(most or 5, 5) for turn in turns)
    counts = [sum(group in turn for turn in turns) for group in groups]
    assert len(set(counts)) == 1


# --- how much they count


def test_a_warm_up_asks_nobody_at_first_and_then_ever_more():
    made, mail, _, _ = peers(beta=0.5, schedule=WarmUpBeta(start_frames=100, climb_frames=100))
    mail.bring(0, 1, seed=2)
    made.exchange(Weights(1, values(1)))
    data = batch(4)
    assert made.targets(data, Weights(1, values(1), 100)) is None
    assert made.targets(data, Weights(1, values(1), 150)).beta == pytest.approx(0.25)
    assert made.targets(data, Weights(1, values(1), 1e9)).beta == 0.5


def test_in_a_cycle_the_ensemble_counts_after_each_exchange_and_then_groups_learn_alone():
    made, mail, _, _ = peers(beta=0.5, exchange_every=5, schedule=CyclicBeta(updates=2))
    mail.bring(0, 1, seed=2)
    data, counted = batch(4), []
    for version in range(5, 16):
        made.exchange(Weights(version, values(1)))
        counted.append(made.targets(data, Weights(version, values(1))) is not None)
    assert counted == [True, True, False, False, False] * 2 + [True]


def test_the_group_with_the_greatest_return_teaches_the_others():
    made, mail, notes, _ = peers(mixing=BestGroupMixing(window_frames=10))
    data = batch(4)._replace(reward=torch.full((4, R * B), 2.0), valid=torch.ones(4, R * B))
    data.valid[0] = 0.0  # 3 rewards of 2 to a reset: its own return is 6
    made.targets(data, Weights(0, values(1), 0))
    made.targets(data, Weights(0, values(1), 10))
    for version, scores, teacher in ((1, (5.0, 7.0), 2), (2, (9.0, 7.0), 0), (3, (5.0, 4.0), OWN)):
        for group, score in zip((0, 2), scores, strict=True):
            mail.bring(group, version, seed=group, score=score)
        made.exchange(Weights(version, values(1)))
        _, mixture = heard(made, data)
        seed = 5 if teacher == OWN else teacher
        expected = opinion_of(teacher, seed, data).policy.softmax(-1)
        torch.testing.assert_close(mixture.policy.softmax(-1), expected)
        assert mixture.own_weight == (teacher == OWN)
    assert mail.scores == [6.0, 6.0, 6.0]
    made.exchange(Weights(4, values(1)))
    assert {row["group"]: row["score"] for row in notes["peers"] if row["version"] == 4} == {0: 5.0, OWN: 6.0, 2: 4.0}


def test_before_any_return_is_known_a_group_teaches_itself():
    made, mail, _, _ = peers(mixing=BestGroupMixing())
    mail.bring(0, 1, seed=2)
    made.exchange(Weights(1, values(1)))
    assert heard(made, batch(4))[1].own_weight == 1.0


def test_after_a_plateau_that_the_leader_saw_beta_climbs():
    schedule = PlateauBeta(window_frames=10, patience=2, gain=0.1, climb_frames=100)
    made, mail, _, _ = peers(beta=1.0, schedule=schedule)
    mail.bring(0, 1, seed=2)
    frames = 0
    for reward in (0, 1, 2, 3, 3, 3):
        data = batch(4)._replace(reward=torch.full((4, R * B), float(reward)), valid=torch.ones(4, R * B))
        data.valid[0] = 0.0
        assert made.targets(data, Weights(1, values(1), frames)) is None
        frames += 10
    data = batch(4)
    data.valid[1:] = 1.0
    made.targets(data, Weights(1, values(1), frames))
    made.exchange(Weights(2, values(1)))
    assert made.targets(data, Weights(2, values(1), frames + 30)).beta == pytest.approx(0.3, abs=0.11)


def test_the_guard_fires_when_the_groups_are_all_the_same_and_lets_go_when_they_part():
    made, mail, notes, _ = peers(beta=0.5, min_divergence=1e-3)
    data = batch(4)
    mail.bring(0, 1, seed=7)
    made.exchange(Weights(1, values(1)))
    targets, _ = heard(made, data, seed=7)  # the peer's weights are this group's own
    assert targets.beta == 0.5, "nothing was measured yet"
    made.exchange(Weights(2, values(1)))
    assert notes.last["divergence"] == pytest.approx(0.0, abs=1e-7)
    assert (notes.last["guard"], notes.last["beta"]) == (0.0, 0.0)
    apart = values(3).clone()
    apart += torch.randn(len(apart), generator=torch.Generator().manual_seed(0))
    mail.bring(0, 3, seed=0, flat=apart.numpy())
    targets, _ = heard(made, data, seed=7)
    assert targets.beta == 0.0, "still asked, so that it can notice"
    made.exchange(Weights(3, values(1)))
    heard(made, data, seed=7)
    made.exchange(Weights(4, values(1)))
    assert notes.last["divergence"] > 1e-3
    assert notes.last["guard"] == 1.0


def test_normalised_values_are_by_moments_agreed_on_at_the_exchange():
    made, mail, _, _ = peers(mixing=SoftmaxMixing(normalise=True))
    mail.bring(0, 1, seed=2)
    mail.bring(2, 1, seed=3)
    made.exchange(Weights(1, values(1)))
    data = batch(4)
    assert heard(made, data)[1].own_weight == pytest.approx(1 / 3), "no spread is known yet"
    assert heard(made, data)[1].own_weight == pytest.approx(1 / 3), "nor agreed on"
    made.exchange(Weights(2, values(1)))
    targets = made.targets(data, LEARNED)
    own = own_opinion(targets, data, 5)
    one = targets.mix(own)
    other = targets.mix(own)
    assert torch.equal(one.policy, other.policy), "the same until the next exchange"
    found = torch.stack([own.value] + [opinion_of(g, s, data).value for g, s in ((0, 2), (2, 3))])
    scaled = (found - found.mean((1, 2), keepdim=True)) / found.std((1, 2), correction=0, keepdim=True)
    assert one.own_weight == pytest.approx(float(scaled.softmax(0)[0].mean()), abs=1e-5)


def opinion_of(group, seed, data):
    from hpcddrl.roles.peers import opinion

    return opinion(network(seed, group), data, slice(4))


# --- learners of one group


class Line:
    """A broadcast from the leader to one other learner of its group, in one process."""

    size = 2

    def __init__(self, box):
        self.box = box


class Leader(Line):
    def Bcast(self, buffer, root):  # noqa: N802
        self.box.append(np.array(buffer))


class Follower(Line):
    def Bcast(self, buffer, root):  # noqa: N802
        buffer[:] = self.box.pop(0)


def test_learners_of_a_group_have_one_ensemble():
    box = []
    options = {"mixing": SoftmaxMixing(normalise=True), "max_age": 2, "min_divergence": 0.5}
    leader, mail, ours, _ = peers(learners=Leader(box), **options)
    follower, _, theirs, _ = peers(learners=Follower(box), **options)
    follower._meetings._exchange = None
    for version in range(1, 9):
        if version in (1, 4, 5):
            mail.bring(0, 10 * version, seed=version)
            mail.bring(2, 10 * version, seed=version)
        for made in (leader, follower):
            made.exchange(Weights(version, values(1)))
        assert not box
        assert ours.last["peers"] == theirs.last["peers"]
        assert ours.last["guard"] == theirs.last["guard"]
        data = batch(4, seed=100)
        said = [made.targets(data, LEARNED) for made in (leader, follower)]
        if said[0] is None:
            assert said[1] is None
            continue
        own = own_opinion(said[0], data, 5)
        one, other = (targets.mix(own) for targets in said)
        assert torch.equal(one.policy, other.policy)
        assert said[0].beta == said[1].beta
        other_batch = batch(4, seed=version)  # each learns from batches of its own
        heard(follower, other_batch)
    assert [row["peers"] for row in theirs["exchange"]] == [2, 2, 2, 2, 2, 2, 2, 0]
