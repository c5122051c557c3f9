"""What `make bench` refuses before anything runs, and that the tables tell of all that it measures."""

import sys

import pytest
from benchmarks.peers.run import PEERS
from benchmarks.run import main

from benchmarks import bench_time, tables


@pytest.fixture
def refused(monkeypatch, capsys):
    """What is said where these arguments are refused."""

    def call(*arguments):
        monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        monkeypatch.setattr(sys, "argv", ["run", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2
        return capsys.readouterr().err

    return call


def test_names_are_offered_as_they_are_typed(refused):
    said = refused("nonsense")
    assert "transfer" in said
    assert "bench_" not in said


def test_one_seed_is_the_least(refused):
    assert "0 seeds were asked for" in refused("demo", "--seeds", "0")


def test_tables_tell_of_what_is_measured():
    assert list(tables.WITHIN) == list(bench_time.WITHIN)
    assert list(tables.PEERS) == list(PEERS)
