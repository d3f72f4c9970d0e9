from django.urls import URLPattern, path

from publichealth.views import citizen, drift, nodes, surveillance

app_name = "publichealth"
urlpatterns: list[URLPattern] = [
    path("health/", citizen.citizen, name="citizen"),
    path("node/", nodes.node_dashboard, name="node-dashboard"),
    path("public-health/", surveillance.dashboard, name="dashboard"),
    path("public-health/live/", surveillance.dashboard_live, name="dashboard-live"),
    path(
        "public-health/thresholds/<str:figure>/", surveillance.threshold_set, name="threshold-set"
    ),
    path(
        "public-health/thresholds/<str:figure>/reset/",
        surveillance.threshold_reset,
        name="threshold-reset",
    ),
    path("public-health/drift/", drift.drift_page, name="drift"),
    path("public-health/drift/live/", drift.drift_live, name="drift-live"),
    path("public-health/drift/check/", drift.drift_check_create, name="drift-check-create"),
    path(
        "public-health/drift/<int:check_id>/", drift.drift_check_detail, name="drift-check-detail"
    ),
    path("public-health/drift/propose/", drift.proposal_create, name="proposal-create"),
    path(
        "public-health/proposals/<int:proposal_id>/accept/",
        drift.proposal_accept,
        name="proposal-accept",
    ),
    path(
        "public-health/proposals/<int:proposal_id>/decline/",
        drift.proposal_decline,
        name="proposal-decline",
    ),
    path(
        "public-health/proposals/<int:proposal_id>/withdraw/",
        drift.proposal_withdraw,
        name="proposal-withdraw",
    ),
]
