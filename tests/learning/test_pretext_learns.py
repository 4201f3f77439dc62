"""What pretext tasks see after a few hundred updates on images like Pong's: a ball of 4 pixels among 7,056."""

import numpy as np
import pytest
import torch

from hpcddrl.networks.torsos import nips
from hpcddrl.pretext.decoding import convolutions
from hpcddrl.pretext.motion import error_inside
from hpcddrl.pretext.pictures import marked, write_png
from hpcddrl.pretext.tasks import (
    AttentiveAutoencoder,
    Autoencoder,
    NextFrame,
    ObjectProposals,
    Segmentation,
    Views,
    by_motion,
    evenly,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHAPE = (2, 84, 84)


def pong(count, seed):
    """Return views of a ball, two paddles and two walls, and where the ball is in the next observation [N, 1, H, W]."""
    rng, side = np.random.default_rng(seed), SHAPE[1]
    frames, balls = np.full((count, 3, side, side), 60, np.uint8), np.zeros((count, 1, side, side), bool)
    frames[:, :, :8] = frames[:, :, -8:] = 150
    for shown, ball in zip(frames, balls, strict=True):
        at, speed = rng.integers(12, side - 16, 2), rng.choice([-2, 2], 2)
        paddles, speeds = rng.integers(14, side - 26, 2), rng.integers(-2, 3, 2)
        for t in range(3):
            for paddle, column in zip(paddles + t * speeds, (6, side - 8), strict=True):
                shown[t, paddle : paddle + 8, column : column + 2] = 200
            y, x = at + t * speed
            shown[t, y : y + 2, x : x + 2] = 236
        ball[0, y : y + 2, x : x + 2] = True
    before, after = torch.from_numpy(frames[:, :2]), torch.from_numpy(frames[:, 1:])
    return Views(before, torch.zeros(count, dtype=torch.int64), after), torch.from_numpy(balls)


def block(count, seed):
    """Return views of a square of 9 pixels' side, which stands elsewhere in the later one, and where [N, 1, H, W]."""
    rng = np.random.default_rng(seed)
    frames, blocks = np.full((count, 4, 84, 84), 60, np.uint8), np.zeros((count, 1, 84, 84), bool)
    frames[:, :, :8] = 150
    for shown, where in zip(frames, blocks, strict=True):
        for two in (shown[:2], shown[2:]):
            at, speed = rng.integers(10, 72, 2), rng.choice([-1, 1], 2)
            for t in (0, 1):
                y, x = at + t * speed
                two[t, y : y + 9, x : x + 9] = 220
        where[0, y : y + 9, x : x + 9] = True
    before, after = torch.from_numpy(frames[:, :2]), torch.from_numpy(frames[:, 2:])
    return Views(before, torch.zeros(count, dtype=torch.int64), after), torch.from_numpy(blocks)


def trained(make, views=pong, of=lambda views: views, learning_rate=5e-3):
    """Train a torso's convolutions and a task; return what it makes of views it never saw, and where the thing is."""
    torch.manual_seed(0)
    body = convolutions(nips(SHAPE, 0.5))
    task = make(body)
    optimizer = torch.optim.Adam([*body.parameters(), *task.parameters()], lr=learning_rate)
    data, _ = views(512, 0)
    rng = torch.Generator().manual_seed(0)
    for _ in range(400):
        chosen = torch.randint(512, (16,), generator=rng)
        optimizer.zero_grad()
        task(body, of(Views(*(x[chosen] for x in data)))).loss.backward()
        optimizer.step()
    unseen, things = views(64, 1)
    with torch.no_grad():
        return task(body, of(unseen)), things


def last(views):
    """Let the newest observation be the one that is seen."""
    return views._replace(observation=views.next_observation)


def test_a_ball_is_seen_with_weights_only(tmp_path):
    """The error inside its box, after equal updates. A plain mean leaves it out of the image."""
    error, rows = {}, []
    for name, make in (
        ("plain", lambda body: Autoencoder(body, SHAPE, 1, evenly)),
        ("motion", lambda body: Autoencoder(body, SHAPE, 1, by_motion)),
        ("attention", lambda body: AttentiveAutoencoder(body, SHAPE, 1)),
    ):
        solved, balls = trained(make, of=last)
        error[name] = error_inside(solved.pictures["made"], solved.pictures["frame"], balls).item()
        rows += [picture[:8] for picture in solved.pictures.values()]
    write_png(tmp_path / "autoencoders.png", rows)
    print(error, tmp_path)
    assert error["motion"] < error["plain"] / 3
    assert error["attention"] < error["plain"] / 1.3


def test_the_next_frame_is_foretold():
    """The ball goes on as it went: better than to expect that it stays."""
    solved, balls = trained(lambda body: NextFrame(body, SHAPE, 1, 1, by_motion))
    views, _ = pong(64, 1)
    stays = error_inside(views.observation[:, -1:].float() / 255, solved.pictures["frame"], balls).item()
    found = error_inside(solved.pictures["made"], solved.pictures["frame"], balls).item()
    print(found, stays)
    assert found < stays / 2


def test_figure_is_told_from_ground():
    solved, _ = trained(lambda body: Segmentation(body, SHAPE, 1), of=last)
    print(solved.metrics)
    assert solved.metrics["overlap"] > 0.25


def test_a_point_follows_a_thing(tmp_path):
    """The mean distance in pixels, and that of points that were found in another image."""
    solved, blocks = trained(
        lambda body: ObjectProposals(body, SHAPE, 1, 1, evenly, deviation=0.2), block, learning_rate=1e-3
    )
    at = torch.stack([where[0].nonzero().float().mean(0) for where in blocks])
    near, elsewhere = (
        (p[:, 0] - at).norm(dim=-1).mean().item() for p in (solved.points, solved.points.roll(1, dims=0))
    )
    frame = solved.pictures["frame"]
    write_png(tmp_path / "points.png", [row[:8] for row in (marked(frame, solved.points), *solved.pictures.values())])
    print(near, elsewhere, tmp_path)
    assert near < elsewhere / 2
