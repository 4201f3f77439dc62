"""The measure of what pretext tasks see of Pong: where its things are, and what the numbers mean."""

import numpy as np
import pytest
import torch

from benchmarks import pretext
from benchmarks.pong import HEIGHT, SIDE, THINGS, WIDTH, boxes_of, seen, shrunk
from hpcddrl.config.helpers import Autoencoder
from hpcddrl.pretext.tasks import Solved


def test_boxes_are_where_the_ram_says_and_nowhere_out_of_court():
    ram = np.zeros(128, np.uint8)
    ram[[54, 49, 50, 51]] = 114, 129, 75, 94
    ball, left, right = boxes_of(ram)
    assert {tuple(place) for place in np.argwhere(ball)} == {(y, x) for y in range(100, 104) for x in (80, 81)}
    assert (np.argwhere(left).min(0).tolist(), np.argwhere(left).max(0).tolist()) == ([60, 16], [75, 19])
    assert (np.argwhere(right).min(0).tolist(), np.argwhere(right).max(0).tolist()) == ([80, 140], [96, 143])
    ram[54] = 0
    assert not boxes_of(ram)[0].any()


def test_a_small_image_has_each_pixel_that_a_region_touches():
    box = np.zeros((HEIGHT, WIDTH), bool)
    box[5:10, 3:5] = True
    wanted = {(y * SIDE // HEIGHT, x * SIDE // WIDTH) for y in range(5, 10) for x in (3, 4)}
    assert {tuple(place) for place in np.argwhere(shrunk(box))} == wanted


def test_things_stand_in_their_boxes():
    """In the environment's own frames: paddles and ball are brighter there than the ground beside them."""
    found = seen(6, 3)
    assert found.observation.shape == found.later.shape == (6, 4, SIDE, SIDE)
    assert found.boxes.shape == (6, len(THINGS), SIDE, SIDE)
    for observation, boxes in ((found.observation, found.boxes), (found.later, found.later_boxes)):
        newest = observation[:, -1].float()
        for thing in range(len(THINGS)):
            there = boxes[:, thing]
            assert newest[there].mean() > newest[:, 20:70].median() + 10, THINGS[thing]
    assert not torch.equal(found.boxes[:, 0], found.later_boxes[:, 0]), "the ball moves"


def solved(**pictures):
    return Solved(torch.tensor(0.0), {}, pictures)


def test_errors_are_those_inside_the_boxes():
    boxes = torch.zeros(1, 3, 4, 4, dtype=torch.bool)
    boxes[0, 0, 0, 0], boxes[0, 1, 1], boxes[0, 2, 2] = True, True, True
    made, frame = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    frame[0, 0, 0, 0], frame[0, 0, 1], frame[0, 0, 3, 3] = 1.0, 0.5, 1.0
    found = pretext.measures(Autoencoder(), pretext.Trained(solved(made=made, frame=frame), boxes))
    assert found == pytest.approx(
        {
            "error": (1 + 4 * 0.25 + 1) / 16,
            "error_boxes": (1 + 4 * 0.25) / 9,
            "error_ball": 1.0,
            "error_left_paddle": 0.25,
            "error_right_paddle": 0.0,
        }
    )


def test_distances_are_to_the_nearest_point_and_figure_is_without_the_balance():
    box = torch.zeros(2, 8, 8, dtype=torch.bool)
    box[0, 2:4, 2:4] = True  # the middle is (2.5, 2.5); the other image shows no such thing
    points = torch.tensor([[[2.5, 6.5], [2.5, 5.5]], [[0.0, 0.0], [0.0, 0.0]]])
    assert pretext.distance(points, box) == 3.0
    moved, likely = torch.zeros(1, 1, 2, 5), torch.full((1, 1, 2, 5), 0.85)
    moved[..., 0, 0] = 1.0  # a tenth: figure is more likely than not from 0.9 on, as balanced
    likely[..., 0, 0] = 0.95
    assert pretext.figure(solved(moved=moved, figure=likely)).flatten().tolist() == [True] + [False] * 9


def test_the_table_says_how_many_times_better_motion_weights_are(tmp_path):
    rows = []
    for task, error in (("even", 0.09), ("motion", 0.02)):
        row = dict.fromkeys(pretext.COLUMNS, "") | pretext.key_of(task, 1, 100, "abc")
        rows.append(row | {name: str(error) for name in pretext.MEASURED if name.startswith("error")})
    text = pretext.document(rows, tmp_path / "pretext.csv")
    assert "- seed 1: motion weights see 3 times or more better (all 4.5, ball 4.5" in text
    rows[1]["error_boxes"] = "0.05"
    assert "less than 3 times better (all 1.8" in pretext.document(rows, tmp_path / "pretext.csv")
    assert "100 steps" in text
