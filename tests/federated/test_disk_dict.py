import pytest

from federated.cohorts import disk_dict
from federated.cohorts.disk_dict import DiskDict


def test_what_no_longer_fits_in_memory_is_found_all_the_same(monkeypatch):
    monkeypatch.setattr(disk_dict, "NUM_RECENT", 2)
    with DiskDict[str]() as words:
        for number in range(10):
            assert words.setdefault(str(number), f"first {number}") == f"first {number}"
        assert words.setdefault("3", "second") == "first 3"
        words["4"] = "second 4"
        assert [words.get(str(number)) for number in (0, 3, 4, 9)] == [
            "first 0",
            "first 3",
            "second 4",
            "first 9",
        ]
        assert "9" in words
        assert "10" not in words


@pytest.mark.parametrize("value", [0, ""])
def test_an_empty_value_is_one(value):
    with DiskDict() as values:
        values["key"] = value
        assert "key" in values
        assert values.setdefault("key", "other") == value
