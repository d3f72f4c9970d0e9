"""Hospitals as they come, on the served path: nothing that is no number, and a dash on the page."""

import json
import re

import pytest
from django.urls import reverse

from envoys.models import User
from tests.factories import make_user
from tests.federation import finish, make_hospital
from training import services
from training.models import RunReport

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]


def test_a_report_with_odd_hospitals_is_made_and_shows_dashes(queue, hospitals, client):
    low_only = make_hospital("Low only", num_patients=30, risk_tiers=(0,))
    few = make_hospital("Few", num_patients=19)
    run = finish([*hospitals[:2], low_only, few, make_hospital("Empty", num_patients=0)], queue)
    services.request_report(run)
    queue.work()
    assert RunReport.objects.get(run=run).status == RunReport.Status.COMPLETE

    run.refresh_from_db()
    assert run.report is not None
    json.dumps(run.report, allow_nan=False)
    figures = {row["name"]: row for row in run.report["envoys"]}
    assert set(figures) == {hospitals[0].name, hospitals[1].name, "Low only"}
    assert figures["Low only"]["global"]["auroc"] is None
    assert run.report["pooled_test"]["global"]["auroc"] is not None

    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    page = client.get(reverse("training:run-detail", args=[run.pk])).content.decode()
    row = page[page.index("Low only", page.index("Rule of thumb")) :].partition("</tr>")[0]
    assert "–" in row
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)
    assert "Few: 19 of 20 patients with an outcome" in page
