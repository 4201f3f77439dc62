"""Pretext tasks: losses against their formulas, sizes that fit, and gradients that go where they should."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from hpcddrl.envs.toy import Catch
from hpcddrl.networks.torsos import mlp, nips, torso
from hpcddrl.pretext.attention import attention_losses
from hpcddrl.pretext.decoding import Decoder, convolutions, feature_shape
from hpcddrl.pretext.keypoints import centres, gaussians, in_pixels, transported
from hpcddrl.pretext.motion import balanced, error_inside, moving, newest, weighted_error
from hpcddrl.pretext.pictures import GAP, grid, marked, write_png
from hpcddrl.pretext.tasks import (
    AttentiveAutoencoder,
    Autoencoder,
    NextFrame,
    ObjectProposals,
    Segmentation,
    Views,
    by_motion,
    evenly,
    overlap,
)

SHAPE = (4, 42, 42)


def catch(count, seed=0, depth=4, ahead=1):
    """Return views of Catch, at random play: depth frames, the action, and depth frames some steps later."""
    env, rng = Catch(), np.random.default_rng(seed)
    before, actions, after = [], [], []
    for episode in range(count):
        frames, taken = [env.reset(seed=seed * 1000 + episode)[0]], []
        for _ in range(depth + ahead):
            taken.append(int(rng.integers(3)))
            frames.append(env.step(np.int64(taken[-1]))[0])
        start = int(rng.integers(0, 2))
        before.append(np.stack(frames[start : start + depth]))
        actions.append(taken[start + depth - 1])
        after.append(np.stack(frames[start + ahead : start + depth + ahead]))
    return Views(*(torch.from_numpy(np.stack(x)) for x in (before, actions, after)))


def body_of(shape=SHAPE, name="nips", seed=0):
    torch.manual_seed(seed)
    return convolutions(torso(name, shape, 0.5))


def test_what_moves():
    observation = torch.zeros(2, 3, 6, 6, dtype=torch.uint8)
    observation[0, 1, 0, 1] = observation[0, 2, 0, 3] = 200  # from (0, 1) to (0, 3)
    observation[1, :, 4, 4] = 90  # stands still
    observation[1, 0, 2, 2] = 255  # moved earlier
    exact = moving(observation, 1, spread=0)
    assert exact.shape == (2, 1, 6, 6)
    assert exact.nonzero().tolist() == [[0, 0, 0, 1], [0, 0, 0, 3]]
    wide = moving(observation, 1, spread=1)
    assert wide[0, 0, :2, :5].all()
    assert wide.sum() == 10
    coloured = torch.zeros(1, 6, 2, 2, dtype=torch.uint8)
    coloured[0, 4, 1, 0] = 50  # in the second of three colours
    assert moving(coloured, 3, spread=0).nonzero().tolist() == [[0, 0, 1, 0]]
    np.testing.assert_allclose(newest(coloured, 3)[0, 1, 1, 0], 50 / 255)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_what_moves_weighs_its_share(share):
    mask = torch.zeros(3, 1, 4, 5, dtype=torch.bool)
    mask[0, 0, 0, :2] = True
    mask[1] = True
    weights = balanced(mask, share)
    assert weights[0, 0, 0, 0] == pytest.approx(share * 20 / 2)
    assert weights[0, 0, 3, 3] == pytest.approx((1 - share) * 20 / 18)
    np.testing.assert_allclose(weights.mean(dim=(1, 2, 3)), 1, rtol=1e-6)
    assert (weights[1:] == 1).all()


def test_errors_are_their_formulas():
    rng = np.random.default_rng(0)
    made, target, weights = (rng.random(shape) for shape in ((2, 3, 4, 5), (2, 3, 4, 5), (2, 1, 4, 5)))
    total, inside, count = 0.0, 0.0, 0
    for n, c, y, x in np.ndindex(made.shape):
        square = (made[n, c, y, x] - target[n, c, y, x]) ** 2
        total += weights[n, 0, y, x] * square
        inside += square * (weights[n, 0, y, x] > 0.5)
        count += weights[n, 0, y, x] > 0.5
    made, target, weights = map(torch.from_numpy, (made, target, weights))
    assert weighted_error(made, target, weights) == pytest.approx(total / made.numel())
    assert error_inside(made, target, weights > 0.5) == pytest.approx(inside / count)
    assert error_inside(made, target, weights > 2) == 0


def test_attention_finds_its_optimum():
    """A ∝ exp(e / (T max e)): there the mask's gradient vanishes, and nowhere nearby is its loss less."""
    torch.manual_seed(0)
    error, temperature = torch.rand(2, 3, 4) ** 3, 0.3
    best = (error / error.amax(dim=(1, 2), keepdim=True) / temperature).requires_grad_()
    losses = attention_losses(error, best, temperature)
    (gradient,) = torch.autograd.grad(losses.attention, best)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    best, least = best.detach(), losses.attention.item()
    for _ in range(5):
        assert attention_losses(error, best + 0.1 * torch.randn(2, 3, 4), temperature).attention > least
    scaled = attention_losses(50 * error, best, temperature)
    assert scaled.attention.item() == pytest.approx(least, rel=1e-5)


def test_attention_losses_are_their_formulas():
    torch.manual_seed(0)
    error, logits, temperature = torch.rand(2, 3, 4), torch.randn(2, 3, 4), 0.4
    losses = attention_losses(error, logits, temperature)
    reconstruction = attention = 0.0
    for e, given in zip(error.double().numpy(), logits.double().numpy(), strict=True):
        mask = np.exp(given) / np.exp(given).sum()
        wanted = np.exp(e / e.max() / temperature)
        reconstruction += (12 * mask * e).mean() / 2
        attention -= (wanted / wanted.sum() * np.log(mask)).sum() / 2
    assert losses.reconstruction.item() == pytest.approx(reconstruction, rel=1e-5)
    assert losses.attention.item() == pytest.approx(attention, rel=1e-5)
    np.testing.assert_allclose(losses.mask.mean(dim=(1, 2)), 1, rtol=1e-5)
    nothing_wrong = attention_losses(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), 1.0)
    assert nothing_wrong.attention.item() == pytest.approx(math.log(4))


def test_attention_and_reconstruction_are_constants_to_each_other():
    made, logits = torch.rand(2, 3, 4, requires_grad=True), torch.rand(2, 3, 4, requires_grad=True)
    losses = attention_losses(made**2, logits, 1.0)
    for loss, gets, not_this in ((losses.reconstruction, made, logits), (losses.attention, logits, made)):
        own, other = torch.autograd.grad(loss, (gets, not_this), allow_unused=True, retain_graph=True)
        assert own.abs().sum() > 0
        assert other is None


@pytest.mark.parametrize("shape", [(4, 42, 42), (4, 84, 84), (2, 61, 50)])
@pytest.mark.parametrize("name", ["nips", "nature", "resnet"])
def test_a_decoder_leads_back_to_the_image(name, shape):
    body = body_of(shape, name)
    features = torch.zeros(1, *feature_shape(body, shape))
    assert body(torch.zeros(1, *shape)).shape == features.shape
    assert Decoder(body, shape, 3)(features).shape == (1, 3, *shape[1:])


def test_the_convolutions_are_the_torsos_own():
    whole = nips(SHAPE, 1.0)
    body = convolutions(whole)
    assert {id(p) for p in body.parameters()} < {id(p) for p in whole.parameters()}
    assert len(list(body.parameters())) == 4
    with pytest.raises(ValueError, match=r"network.torso = 'mlp'.*use nips, nature or resnet"):
        convolutions(mlp(SHAPE, 1.0))


def test_a_bright_spot_is_its_maps_centre():
    maps = torch.zeros(1, 3, 5, 9)
    maps[0, 0, 4, 0] = maps[0, 1, 2, 4] = 1e4
    found = centres(maps)
    np.testing.assert_allclose(found[0, 0], [1, -1], atol=1e-4)
    np.testing.assert_allclose(found[0, 1], [0, 0], atol=1e-4)
    np.testing.assert_allclose(found[0, 2], [0, 0], atol=1e-6)
    assert in_pixels(found, 50, 90)[0, 0].round().tolist() == [49, 0]


def test_bumps_are_gaussian():
    places = torch.tensor([[[0.5, -1.0]]])
    found = gaussians(places, (5, 3), 0.4)
    assert found.shape == (1, 1, 5, 3)
    for i, y in enumerate(np.linspace(-1, 1, 5)):
        for j, x in enumerate(np.linspace(-1, 1, 3)):
            expected = math.exp(-((y - 0.5) ** 2 + (x + 1) ** 2) / (2 * 0.4**2))
            assert found[0, 0, i, j].item() == pytest.approx(expected, rel=1e-5)
    assert found.max() == 1


def test_features_are_taken_out_and_put_in_at_points():
    source, target = torch.full((1, 2, 3, 3), 5.0), torch.full((1, 2, 3, 3), 7.0)
    here, there = torch.zeros(2, 1, 2, 3, 3)
    here[0, 0, 0, 0] = there[0, 1, 2, 2] = 1
    moved = transported(source, target, here, there)
    expected = torch.full((1, 2, 3, 3), 5.0)
    expected[:, :, 0, 0], expected[:, :, 2, 2] = 0, 7
    np.testing.assert_array_equal(moved, expected)


def tasks(body, shape=SHAPE, channels=1):
    return {
        "autoencoder": Autoencoder(body, shape, channels, by_motion),
        "attentive": AttentiveAutoencoder(body, shape, channels),
        "next_frame": NextFrame(body, shape, channels, 3, by_motion),
        "segmentation": Segmentation(body, shape, channels),
        "object_proposals": ObjectProposals(body, shape, channels, 4, by_motion),
    }


NAMES = ["autoencoder", "attentive", "next_frame", "segmentation", "object_proposals"]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_torso_and_the_task(name):
    body = body_of()
    task = tasks(body)[name]
    own, shared = dict(task.named_parameters()), list(body.parameters())
    assert not {id(p) for p in own.values()} & {id(p) for p in shared}
    solved = task(body, catch(6))
    gradients = torch.autograd.grad(solved.loss, [*shared, *own.values()])
    assert all(g.isfinite().all() for g in gradients)
    assert all(g.abs().sum() > 0 for g in gradients)
    for name_of, picture in solved.pictures.items():
        assert picture.shape == (6, 1, 42, 42), name_of
        assert not picture.requires_grad
        assert 0 <= picture.min() <= picture.max() <= 1


def test_a_later_frame_is_made_from_the_points_alone():
    """Where no bump reaches, nothing of the later frame can be known."""
    body = body_of()
    task, views = ObjectProposals(body, SHAPE, 1, 2, evenly), catch(4, ahead=3)
    task._bumps = lambda places: torch.zeros(len(places), 2, *task._size)
    made = task(body, views).pictures["made"]
    other = views._replace(next_observation=catch(4, seed=9).next_observation)
    np.testing.assert_array_equal(task(body, other).pictures["made"], made)
    different = views._replace(observation=catch(4, seed=9).observation)
    assert (task(body, different).pictures["made"] != made).any()


def test_an_action_changes_what_is_foretold():
    body = body_of()
    task, views = NextFrame(body, SHAPE, 1, 3, evenly), catch(4)
    torch.nn.init.normal_(task.shift.weight)
    made = [task(body, views._replace(action=torch.full((4,), a))).pictures["made"] for a in range(3)]
    assert (made[0] != made[1]).any()
    assert (made[1] != made[2]).any()


def test_overlap_is_intersection_over_union():
    assert overlap(torch.tensor([True, True, False]), torch.tensor([False, True, True])) == pytest.approx(1 / 3)
    assert overlap(torch.zeros(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)) == 1


def test_a_figure_is_what_is_more_likely_than_not():
    """The balance undone: a tenth of the pixels moved, so a logit must be above log 9."""
    body, views = body_of(), catch(8)
    task = Segmentation(body, SHAPE, 1)
    mask = moving(views.observation, 1, spread=1)
    part = mask.float().mean().item()
    for logit, found in ((math.log((1 - part) / part) + 0.1, part), (math.log((1 - part) / part) - 0.1, 0.0)):
        task.decoder.forward = lambda features, logit=logit: torch.full((8, 1, 42, 42), logit)
        assert task(body, views).metrics["overlap"] == pytest.approx(found)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4,), "needs images, the environment shows vectors of 4"),
        ((1, 42, 42), "env.frame_stack = 1.*set env.frame_stack=2"),
    ],
)
def test_what_no_task_can_work_with_is_named(shape, words):
    body = body_of()
    for make in (
        lambda: Autoencoder(body, shape, 1, evenly),
        lambda: AttentiveAutoencoder(body, shape, 1),
        lambda: NextFrame(body, shape, 1, 3, evenly),
        lambda: Segmentation(body, shape, 1),
        lambda: ObjectProposals(body, shape, 1, 3, evenly),
    ):
        with pytest.raises(ValueError, match=words):
            make()


def test_a_grid_has_a_row_for_each_kind(tmp_path):
    grey, red = torch.full((3, 1, 4, 5), 0.5), torch.zeros(3, 3, 4, 5)
    red[:, 0] = 1
    points = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]], [[1.4, 1.6]]])
    write_png(tmp_path / "grid.png", [grey, red, marked(grey, points)])
    found = np.asarray(Image.open(tmp_path / "grid.png"))
    np.testing.assert_array_equal(found, grid([grey, red, marked(grey, points)]))
    assert found.shape == (3 * (4 + GAP) + GAP, 3 * (5 + GAP) + GAP, 3)
    assert found[GAP, GAP].tolist() == [128, 128, 128]
    assert found[GAP + 4 + GAP, GAP + 5 + GAP].tolist() == [255, 0, 0]
    third = found[GAP + 2 * (4 + GAP) :, GAP + 2 * (5 + GAP) :]
    assert third[1, 2].tolist() == [255, 51, 51]
    assert third[0, 0].tolist() == [128, 128, 128]
    with pytest.raises(ValueError, match=r"rows = .*must be images of one number and size"):
        grid([grey, red[:2]])
