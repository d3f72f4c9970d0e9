"""Bodies that are JSON for the standard library and yet cannot be worked with."""

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from envoys.models import User
from tests.api import Program
from tests.factories import make_envoy, make_user

pytestmark = pytest.mark.django_db

LONE_SURROGATE_NAME = r'{"\ud800": 1}'
LONE_SURROGATE_VALUE = r'{"username": "\uDFFF", "password": "x"}'
DEEP = "[" * 200_000
DEEP_AND_CLOSED = "[" * 200_000 + "]" * 200_000


def send(path: str, body: str) -> Any:
    return APIClient().generic("POST", path, body, content_type="application/json")


@pytest.mark.parametrize("body", [LONE_SURROGATE_NAME, LONE_SURROGATE_VALUE, DEEP, DEEP_AND_CLOSED])
@pytest.mark.parametrize("path", ["/api/v1/token", "/api/v1/account", "/api/v1/health-risk"])
def test_an_open_call_refuses_it_in_words(path, body):
    response = send(path, body)
    assert response.status_code == 400, response.content
    answer = response.json()
    assert set(answer) == {"type", "detail", "errors"}
    assert answer["detail"].startswith("JSON parse error")


@pytest.mark.parametrize("depth", [200, 900, 200_000])
def test_a_call_with_a_key_refuses_what_is_nested_however_deep(depth):
    program = Program(make_user(User.Role.DATA_SCIENTIST))
    body = '{"name": ' + "[" * depth + "]" * depth + "}"
    response = program.client.generic(
        "POST",
        "/api/v1/envoys",
        body,
        content_type="application/json",
        headers={"Idempotency-Key": f"deep {depth}"},
    )
    assert response.status_code == 400, response.content
    assert set(response.json()) == {"type", "detail", "errors"}


def test_a_whole_surrogate_pair_is_a_character_and_named_back():
    response = send("/api/v1/health-risk", r'{"\ud83d\ude00": 1}')
    assert response.status_code == 400, response.content
    assert "\N{GRINNING FACE}" in response.json()["errors"]


def test_fields_beyond_the_limit_are_refused_with_413(settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000
    program = Program(make_user(envoy=make_envoy()))
    response = program.client.post(
        "/api/v1/imports",
        {"note": "x" * 2_000, "diagnoses": SimpleUploadedFile("diagnoses.csv", b"subject_id\n")},
        format="multipart",
    )
    assert response.status_code == 413, response.content
    assert response.json()["type"] == "too_large"


@pytest.mark.parametrize("path", ["/api/v1/health-risk", "/api/v1/token", "/api/login"])
def test_a_body_that_is_announced_too_large_is_refused_before_it_is_read(settings, path):
    settings.CALL_MAX_BYTES = 100
    response = send(path, json.dumps({"username": "x" * 200}))
    assert response.status_code == 413, response.content
    assert response.json()["type"] == "too_large"
