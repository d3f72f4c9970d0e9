import math
from collections import Counter

import pytest
import torch

from federated import local_bench
from federated.local_bench import NUM_TURNS, compare, train_bare
from federated.local_training import train_locally
from tests.federated.builders import make_hospital, small_plan


@pytest.mark.parametrize("network", ["logistic_regression", "shallow_network"])
def test_the_bare_loop_takes_as_many_steps_of_the_same_kind_as_ours(network, monkeypatch):
    trained, updates, steps = [], [], []

    def counted(params, dataset, *rest, **options):
        updates.append(
            train_locally(params, dataset, *rest, **options, on_batch=lambda: steps.append("ours"))
        )
        return updates[-1]

    class CountedSGD(torch.optim.SGD):
        def step(self, closure=None):
            steps.append("bare")
            return super().step(closure)

    def bare(*arguments):
        trained.append(train_bare(*arguments))
        return trained[-1]

    monkeypatch.setattr(local_bench, "train_locally", counted)
    monkeypatch.setattr(local_bench, "train_bare", bare)
    monkeypatch.setattr(torch.optim, "SGD", CountedSGD)
    hospital, plan = make_hospital(40), small_plan(network=network)
    figures = compare(hospital, plan)
    assert set(figures) == {"seconds", "bare_seconds", "ratio"}
    # A warm-up each and then in turns; one epoch in batches of 16.
    num_trainings, per_training = 1 + NUM_TURNS, math.ceil(hospital.num_examples / 16)
    assert Counter(steps) == dict.fromkeys(("ours", "bare"), num_trainings * per_training)
    assert trained == pytest.approx([each.metrics["train_loss"] for each in updates], abs=1e-5)


def test_the_ratio_is_our_time_over_the_bare_loops(monkeypatch):
    """A clock by which one of ours takes a second and one of the others four."""
    now = [0.0]

    def taking(seconds, train):
        def timed(*arguments, **options):
            now[0] += seconds
            return train(*arguments, **options)

        return timed

    monkeypatch.setattr(local_bench, "train_locally", taking(1, train_locally))
    monkeypatch.setattr(local_bench, "train_bare", taking(4, train_bare))
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    assert compare(make_hospital(40), small_plan()) == {
        "seconds": 1,
        "bare_seconds": 4,
        "ratio": 0.25,
    }


def test_other_steps_are_noticed(monkeypatch):
    monkeypatch.setattr("federated.local_bench.train_bare", lambda *args: 0.0)
    with pytest.raises(AssertionError, match="not the same steps"):
        compare(make_hospital(40), small_plan())
