"""What watching costs, from intervals whose rates are known."""

from datetime import datetime

import numpy as np
import pytest
from written_runs import STEPS, config_of, write_run

from benchmarks import watching
from benchmarks.watching import Span, rates_in, values_of
from hpcddrl.logs.read import read_runs


def test_each_interval_with_it_is_compared_with_those_around_it():
    """Costs of 10 % and 5 %: the mean 7.5 %, its standard error 2.5 %, t(0.975, 1) = 12.706."""
    rates = np.array([100.0, 90.0, 100.0, 104.5, 120.0])
    spans = [Span(10.0 * i, 10.0 * (i + 1), 0.4 * (i % 2)) for i in range(5)]
    row = values_of(rates, spans)
    assert (row["without_per_s"], row["with_per_s"], row["cost"], row["watch_cpu"]) == ("107", "97", "7.50%", "0.040")
    assert float(row["high"].rstrip("%")) == pytest.approx(7.5 + 12.706 * 2.5, abs=0.02)
    assert float(row["low"].rstrip("%")) == pytest.approx(7.5 - 12.706 * 2.5, abs=0.02)


def test_rates_are_those_of_all_ranks_in_each_interval(tmp_path):
    run = read_runs([write_run(tmp_path / "run", config_of(ranks=4), rows=20)])
    began = min(datetime.fromisoformat(started).timestamp() for started in run.ranks["started"])
    found = rates_in(run, [Span(began + 2, began + 7.5, 0.0), Span(began + 7.5, began + 12, 0.0)])
    assert found == pytest.approx([3 * STEPS] * 2)


def test_what_is_missing_is_named_with_its_time(tmp_path, capsys):
    assert watching.main(["--missing", "--into", str(tmp_path), "--interval", "10", "--rounds", "3"]) == 0
    assert "ranks 16, interval 10.0, rounds 3 (ETA 0:01:55)" in capsys.readouterr().out


def test_one_interval_is_refused(capsys):
    with pytest.raises(SystemExit):
        watching.main(["--rounds", "1"])
    assert "--rounds 1: one interval says nothing about spread" in capsys.readouterr().err
