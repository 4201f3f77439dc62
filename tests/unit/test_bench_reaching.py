"""How soon a game is played well, from rows that are known."""

import pytest

from benchmarks import reaching
from benchmarks.page import AROUND
from benchmarks.rows import add_row

KEY = {"code": "c0de", "machine": "one", "recipe": "impala", "env": "Game", "ranks": "4", "target": "18"}
COLUMNS = (*reaching.TABLE.key, *reaching.TABLE.values, *AROUND, *reaching.TABLE.hidden)


@pytest.fixture
def table(tmp_path):
    """Return what writes rows of runs: precision, whether they reached it, seconds, millions of frames."""

    def write(*runs, **other):
        for seed, (precision, reached, seconds, millions) in enumerate(runs, 1):
            row = dict.fromkeys(COLUMNS, "0") | KEY | {"seconds": "900", "precision": precision, "seed": str(seed)}
            row |= {"reached": reached, "took_s": str(seconds), "frames": f"{millions * 1e6:.0f}"} | other
            add_row(tmp_path / "reaching.csv", COLUMNS, row | {"curve": "10:-20 20:5"})
        return "\n".join(reaching.overview(tmp_path))

    return write


def test_means_are_over_the_seeds_that_reached_it(table, tmp_path):
    text = table(("auto", "yes", 500, 8), ("auto", "no", 900, 12), ("auto", "yes", 700, 10), ("fp32", "no", 900, 7))
    assert "| auto | 2 of 3 | 600 [500, 700] | 9M [8M, 10M] | 700 |" in text
    assert "| fp32 | 0 of 1 | – | – | – |" in text
    assert "less those of" not in text, "of none there is no difference"
    assert (tmp_path / "reaching.png").exists()


def test_frames_of_the_precisions_are_compared(table):
    text = table(*(("auto", "yes", 500, m) for m in (8, 9, 10)), *(("fp32", "yes", 600, m) for m in (4, 5, 6)))
    assert "Millions of frames that auto needed, less those of fp32: +4 [" in text


def test_only_the_newest_code_is_summed_up(table):
    table(("auto", "yes", 100, 1), code="01d")
    assert "| auto | 1 of 1 | 500 | 8M | 500 |" in table(("auto", "yes", 500, 8))


def test_the_curve_stands_in_the_csv_file_alone(table, tmp_path):
    table(("auto", "yes", 500, 8))
    assert "10:-20" not in reaching.PAGE.document(tmp_path)
    assert "10:-20" in (tmp_path / "reaching.csv").read_text()
