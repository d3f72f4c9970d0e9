"""What `demo_health` refuses before it has begun: above all before it empties a data folder."""

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError


@pytest.fixture
def database(monkeypatch, tmp_path):
    """A data folder with something in it."""
    monkeypatch.setattr(settings, "DATA_DIR", tmp_path)
    monkeypatch.setattr(settings, "PREPARING_FLAG", tmp_path / "preparing")
    file = tmp_path / "db.sqlite3"
    file.write_bytes(b"rows")
    return file


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": -1.0}, "noise is a standard deviation from 0, not -1"),
        ({"gaps": 2.0}, "gaps is a probability from 0 and below 1, not 2"),
        ({"rows": 5}, "--rows: a node with fewer than 100 people"),
        ({"rows": 0}, "at least one row, not 0"),
        ({"target": "died_in_hospital"}, "the synthetic nodes have health_risk only"),
        ({"target": "nonsense"}, "the synthetic nodes have health_risk only, not nonsense"),
        ({"strategy": "fedsomething"}, "fedsomething"),
        ({"rounds": 0}, "0"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_emptied(database, options, words):
    with pytest.raises(CommandError, match=words):
        call_command("demo_health", fresh=True, no_serve=True, **options)
    assert database.read_bytes() == b"rows"


def test_a_folder_without_the_file_is_refused_by_name(database, tmp_path):
    with pytest.raises(
        CommandError, match=r"nhanes_adults\.csv\.gz cannot be read .*import_readings"
    ):
        call_command("demo_health", fresh=True, no_serve=True, data=tmp_path)
    assert database.read_bytes() == b"rows"
