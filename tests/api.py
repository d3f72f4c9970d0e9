"""A program that logs in and calls, as a client of the API does."""

from typing import Any

from rest_framework.test import APIClient

from envoys.models import User
from tests.factories import PASSWORD


class Program:
    """Calls with a token; what is not answered as expected fails the test with its words."""

    def __init__(self, user: User, *, login: str = "/api/v1/token", token: str = "access") -> None:
        self.client = APIClient()
        tokens = self.post(login, {"username": user.username, "password": PASSWORD}, code=200)
        self.client.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens[token]}")

    def get(self, path: str, code: int = 200) -> Any:
        return self._answer(self.client.get(path), code)

    def post(self, path: str, body: Any = None, *, code: int = 201, key: str = "") -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        return self._answer(self.client.post(path, body, headers=headers), code)

    def patch(self, path: str, body: Any, code: int = 200) -> Any:
        return self._answer(self.client.patch(path, body), code)

    def delete(self, path: str, body: Any, code: int = 202) -> Any:
        return self._answer(self.client.delete(path, body), code)

    def _answer(self, response: Any, code: int) -> Any:
        assert response.status_code == code, response.content.decode()[:2000]
        self.headers = response.headers
        return response.json() if response.content else None
