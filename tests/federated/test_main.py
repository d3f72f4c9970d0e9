import json
import subprocess
import sys
from pathlib import Path

import pytest

from federated.__main__ import main, read_datasets
from federated.plan import make_plan
from federated.simulation import simulate
from tests.federated.builders import CODE_OF_TIER

ROOT = Path(__file__).resolve().parents[2]
SEED_REFUSED = "argument --seed: a seed lies between 0 and 2147483647, not "


def write_cohort(data_dir: Path) -> Path:
    """Two hospitals of sixty patients each."""
    for name in ("north", "south"):
        envoy = data_dir / "envoys" / name
        envoy.mkdir(parents=True)
        tiers = {f"{name}{number}": number % 3 for number in range(60)}
        diagnoses = [f"{p},{p},1,{CODE_OF_TIER[tier]},10" for p, tier in tiers.items()]
        outcomes = [f"{p},{p},{50 + tier},{tier}" for p, tier in tiers.items()]
        header = "subject_id,hadm_id,seq_num,icd_code,icd_version"
        (envoy / "diagnoses_icd.csv").write_text("\n".join([header, *diagnoses]))
        (envoy / "outcomes.csv").write_text(
            "\n".join(["subject_id,hadm_id,age,risk_tier", *outcomes])
        )
    return data_dir


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "federated", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_cohort_folder_is_trained_on_and_reported_as_json(tmp_path):
    data_dir = write_cohort(tmp_path)
    done = run(str(data_dir), "--rounds", "1", "--seed", "3")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    here = simulate(
        read_datasets(data_dir, "risk_tier"), make_plan(target="risk_tier", num_rounds=1), seed=3
    )
    assert report["final_sha256"] == here.final_sha256
    assert [envoy["name"] for envoy in report["envoys"]] == ["north", "south"]
    assert {"pooled_test", "mean_of_envoys"} <= set(report)


def test_a_folder_that_is_no_cohort_is_refused_in_words_and_with_status_2():
    done = run("nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("federated: nowhere: no cohort: neither envoys/<name>/")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--target", "mortality"], "federated: no target is called 'mortality'"),
        (["--network", "transformer"], "federated: no network is called 'transformer'"),
        (["--strategy", "mode"], "federated: no strategy is called 'mode'"),
        (["--strategy", "median"], "federated: tolerating num_bad = 1 needs 3 updates or more"),
        (
            ["--strategy", "fedprox", "--strategy-parameter", "mu=much"],
            "federated: mu is a number, not 'much'",
        ),
        (["--learning-rate", "-1"], "federated: learning_rate lies in (0, 100)"),
        (["--seed", "-1"], SEED_REFUSED + "-1"),
        (["--seed", str(2**31)], SEED_REFUSED + "2147483648"),
        (["--seed", "one"], "argument --seed: a seed is a whole number, not 'one'"),
        (["--rounds", "0"], "federated: num_rounds is a whole number from 1, not 0"),
        (
            ["--weight-decay", "0.9", "--learning-rate", "2"],
            "federated: learning_rate times weight_decay is below 1, not 2 times 0.9",
        ),
        (["--learning-rate", "nan"], "federated: learning_rate lies in (0, 100), not nan"),
        (["--local-epochs", "0"], "federated: local_epochs starts at 1, not 0"),
        (["--target", "died_in_hospital"], "federated: no hospital sent feature statistics"),
    ],
)
def test_what_cannot_be_run_is_refused_in_words(tmp_path, monkeypatch, capsys, option, words):
    data_dir = write_cohort(tmp_path)  # it does not say who died
    monkeypatch.setattr(sys, "argv", ["federated", str(data_dir), *option])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert "Traceback" not in shown.err
