"""One world for a whole module; import both fixtures by name."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings

from tests.world import World, make_world


@pytest.fixture(scope="module", autouse=True)
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One folder for the module: the world's objects outlive a test."""
    folder = tmp_path_factory.mktemp("world")
    with override_settings(
        DATA_DIR=folder,
        OBJECT_FOLDER=folder / "objects",
        DIRECTOR_S3_BUCKET_NAME="",
        ENVOY_S3_BUCKET_NAME="",
    ):
        yield


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any, folders: None) -> Iterator[World]:
    """Made once; whoever asks rolls back what that does to it."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield make_world()
        transaction.set_rollback(True)
