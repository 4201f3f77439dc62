"""What one rank complains of, all raise."""

import pytest
from mpi4py import MPI

from hpcddrl.runtime.job import agree


class Agreement:
    COMM = MPI.COMM_NULL

    def test_without_complaint_each_rank_has_its_own_result(self, comm):
        assert agree(comm, lambda: f"of rank {comm.rank}") == f"of rank {comm.rank}"

    @pytest.mark.parametrize("who", ["first", "last", "all"])
    def test_a_complaint_of_any_is_raised_on_all(self, comm, who):
        complaining = {"first": [0], "last": [comm.size - 1], "all": list(range(comm.size))}[who]

        def attempt():
            if comm.rank in complaining:
                raise ValueError(f"rank {comm.rank} does not like it")
            return 1

        with pytest.raises(ValueError, match=f"^rank {complaining[0]} does not like it$"):
            agree(comm, attempt)
        assert agree(comm, lambda: 2) == 2  # and all are in step again


class TestAgreementOnSelf(Agreement):
    COMM = MPI.COMM_SELF


class TestAgreementOnWorld(Agreement):
    COMM = MPI.COMM_WORLD
