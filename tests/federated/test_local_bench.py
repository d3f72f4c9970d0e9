import pytest

from federated.local_bench import compare
from tests.federated.builders import make_hospital, small_plan


@pytest.mark.parametrize("network", ["logistic_regression", "shallow_network"])
def test_the_bare_loop_takes_our_steps_or_the_comparison_stops(network):
    figures = compare(make_hospital(40), small_plan(network=network))
    assert figures["ratio"] > 0


def test_other_steps_are_noticed(monkeypatch):
    monkeypatch.setattr("federated.local_bench.train_bare", lambda *args: 0.0)
    with pytest.raises(AssertionError, match="not the same steps"):
        compare(make_hospital(40), small_plan())
