"""A few odd calls of every operation and a few odd forms of every page; `make fuzz` asks for more."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings

from tests.fuzz.calls import CallFuzzer
from tests.fuzz.forms import FormFuzzer, pages
from tests.world import World, make_world

# In tests nothing has been collected for WhiteNoise to serve.
pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:No directory at"),
    pytest.mark.filterwarnings("default"),
]
NUM_PARTS = 4  # which several processes can take
CALLS_EACH, FORMS_EACH = 6, 6  # everybody once


@pytest.fixture(scope="module", autouse=True)
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("fuzz")
    with override_settings(
        DATA_DIR=folder,
        OBJECT_FOLDER=folder / "objects",
        DIRECTOR_S3_BUCKET_NAME="",
        ENVOY_S3_BUCKET_NAME="",
        ALLOWED_HOSTS=["*"],
    ):
        yield


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any, folders: None) -> Iterator[World]:
    """Made once; what a case does to it is rolled back."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield make_world()
        transaction.set_rollback(True)


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_no_call_ends_in_an_error_of_ours_or_in_what_is_not_described(world, part):
    fuzzer = CallFuzzer(world)
    for operation in fuzzer.operations()[part::NUM_PARTS]:
        fuzzer.ask(operation, num_cases=CALLS_EACH, seed_number=part)
    assert fuzzer.found.failures == {}
    assert fuzzer.found.by_status[200] > 0
    assert fuzzer.found.by_status[404] > 0


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_no_form_ends_in_an_error_of_ours(world, part):
    fuzzer = FormFuzzer(world)
    for page in pages()[part::NUM_PARTS]:
        fuzzer.fill_in(page, num_cases=FORMS_EACH, seed_number=part)
    assert fuzzer.found.failures == {}
    assert fuzzer.found.by_status[200] > 0
    assert fuzzer.found.by_status[302] > 0
