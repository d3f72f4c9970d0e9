"""What every command of the package refuses: in one line of words, with status 2, without a traceback."""

import sys
from pathlib import Path

import pytest

from federated import __main__ as federated_main
from federated import (
    attack_report,
    calibration_report,
    default_scan,
    flamby,
    histogram_error,
    local_bench,
    outcome_codes,
    pooled_baseline,
    recalibration_trial,
    screening_report,
)
from tests.federated.test_main import write_cohort

COMMANDS = {
    "federated": (federated_main.main, ["{data}"]),
    "attack": (attack_report.main, ["--data", "{data}", "--target", "risk_tier"]),
    "outcome codes": (outcome_codes.main, ["--data", "{data}"]),
    "bench-local": (local_bench.main, ["--data", "{data}"]),
    "calibration": (calibration_report.main, ["--data", "{data}"]),
    "scan-defaults": (default_scan.main, ["--data", "{data}"]),
    "recalibration-trial": (recalibration_trial.main, ["--data", "{data}"]),
    "federated.flamby": (flamby.main, ["--data", "{data}"]),
    "histogram-error": (histogram_error.main, ["--data", "{data}"]),
    "pooled-best": (pooled_baseline.main, ["--data", "{data}"]),
    "screening": (screening_report.main, ["--data", "{data}"]),
}
WITH_TARGET = [name for name in COMMANDS if name not in ("outcome codes", "federated.flamby")]
WITH_ROUNDS = [name for name in COMMANDS if name not in ("bench-local", "federated.flamby")]
WITH_SEED = [
    *("federated", "attack", "outcome codes", "calibration", "scan-defaults"),
    *("recalibration-trial", "histogram-error", "pooled-best"),
]
WITH_JSON = ["attack", "outcome codes", "federated.flamby", "histogram-error", "pooled-best"]


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
    """Runs a command that must refuse; returns what it says."""
    cohort = write_cohort(tmp_path / "cohort")
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # so that no pool has to be started first

    def run(name, *options, data=cohort):
        main, arguments = COMMANDS[name]
        given = [argument.format(data=data) for argument in arguments]
        monkeypatch.setattr(sys, "argv", [name, *given, *options])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        return shown.err

    return run


def test_no_command_is_left_out():
    """Every module of the package that has a `main` of its own, but for the maker of its tables."""
    modules = {main.__module__ for main, _ in COMMANDS.values()}
    package = Path(attack_report.__file__).parent
    found = {
        f"federated.{path.stem}"
        for path in package.glob("*.py")
        if "\ndef main()" in path.read_text(encoding="utf-8")
    }
    assert modules == found


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_path_is_refused_in_words(name, refusal, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for data in ("nowhere", file, tmp_path):
        said = refusal(name, data=data)
        assert said.startswith(f"{name}: ")
        assert str(data) in said


@pytest.mark.parametrize("name", WITH_TARGET)
def test_an_unknown_target_is_refused_with_those_there_are(name, refusal):
    said = refusal(name, "--target", "weather")
    assert said.startswith(f"{name}: no target is called 'weather'; there are ")


@pytest.mark.parametrize("name", WITH_TARGET)
def test_an_outcome_that_the_data_does_not_hold_is_refused(name, refusal):
    assert refusal(name, "--target", "died_in_hospital").startswith(f"{name}: ")


@pytest.mark.parametrize("name", WITH_ROUNDS)
def test_rounds_below_one_or_no_number_are_refused(name, refusal):
    words = f"{name}: num_rounds is a whole number from 1, not 0\n"
    assert refusal(name, "--rounds", "0") == words
    assert "argument --rounds: invalid int value: 'many'" in refusal(name, "--rounds", "many")


@pytest.mark.parametrize("name", WITH_SEED)
@pytest.mark.parametrize("seed", ["-1", "2147483648"])
def test_a_seed_out_of_its_one_range_is_refused(name, seed, refusal):
    words = f"argument --seed: a seed lies between 0 and 2147483647, not {seed}"
    assert words in refusal(name, "--seed", seed)


@pytest.mark.parametrize("name", WITH_JSON)
def test_a_report_that_cannot_be_written_is_refused_before_the_work(name, refusal, tmp_path):
    for path in (tmp_path, tmp_path / "no folder" / "report.json"):
        said = refusal(name, "--json", str(path))
        assert f"argument --json: {path} cannot be written" in said


@pytest.mark.parametrize("number", ["0", "-1", "3"])
def test_bad_hospitals_are_at_least_one_and_at_most_all_there_are(number, refusal):
    assert refusal("attack", "--attackers", number) == (
        f"attack: of 2 hospitals, 1 to 2 can be the bad one in turn, not {number}\n"
    )


def test_too_few_hospitals_for_a_robust_strategy_are_refused(refusal):
    said = refusal("attack", "--attackers", "1", "--rounds", "1")
    assert said.startswith("attack: tolerating num_bad = 1 needs ")
