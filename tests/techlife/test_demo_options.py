from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from techlife.management.commands.demo import Command


def options(**changes: Any) -> dict[str, Any]:
    return {
        "data": None,
        "rounds": 1,
        "target": "risk_tier",
        "strategy": "fedavg",
        "strategy_parameter": [],
        "local_epochs": 3,
        "batch_size": 128,
        "learning_rate": 0.3,
        "weight_decay": 0.0,
        "network": "logistic_regression",
        "seed": 0,
        "report": None,
        "port": 8000,
        "no_serve": True,
        "fresh": False,
    } | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rounds": 0}, "num_rounds is a whole number from 1, not 0"),
        ({"target": "luck"}, "no target is called 'luck'; there are risk_tier"),
        ({"strategy": "vote"}, "no strategy is called 'vote'"),
        ({"learning_rate": 0.0}, r"learning_rate lies in \(0, 100\)"),
        ({"batch_size": 0}, r"batch_size lies between 1 and \d+, not 0"),
        ({"network": "oracle"}, "no network is called 'oracle'"),
        ({"strategy_parameter": ["mu=1"]}, "fedavg has no parameter mu; its parameters: none"),
        ({"strategy": "median", "strategy_parameter": ["num_bad"]}, "name=value, not 'num_bad'"),
        ({"strategy": "median", "strategy_parameter": ["num_bad=-1"]}, "num_bad starts at 0"),
        ({"seed": -1}, "a seed lies between 0 and 2147483647, not -1"),
        ({"seed": 2**31}, "a seed lies between 0 and 2147483647, not 2147483648"),
        ({"data": Path("nowhere")}, "nowhere: no cohort"),
        ({"report": Path("nowhere/report.json")}, "--report: nowhere/report.json"),
    ],
)
def test_a_bad_option_is_refused_before_anything_begins(
    changes: dict[str, Any], words: str, settings: Any, tmp_path: Path
) -> None:
    settings.DATA_DIR = tmp_path / "untouched"
    with pytest.raises(CommandError, match=words):
        Command().handle(**options(**changes))
    assert not settings.DATA_DIR.exists()


def test_the_demonstration_is_refused_in_production(settings: Any) -> None:
    settings.EMBEDDED = False
    with pytest.raises(CommandError, match="TECHLIFE_MODE=embedded"):
        call_command("demo", no_serve=True)
