from django.urls import path

from training.views import choices, dashboard, envoys, packages, runs, studies, versions

app_name = "training"
urlpatterns = [
    path("federation/", dashboard.federation_dashboard, name="federation-dashboard"),
    path("envoys/", envoys.envoy_list, name="envoy-list"),
    path("envoys/<int:envoy_id>/", envoys.envoy_detail, name="envoy-detail"),
    path("envoys/<int:envoy_id>/codes/", envoys.envoy_codes, name="envoy-codes"),
    path("envoys/<int:envoy_id>/launch/", envoys.envoy_launch, name="envoy-launch"),
    path("manual/", envoys.manual_round, name="manual-round"),
    path("manual/live/", envoys.manual_round_live, name="manual-round-live"),
    path("manual/aggregate/", envoys.round_aggregate, name="round-aggregate"),
    path("studies/", studies.study_list, name="study-list"),
    path("studies/new/", studies.study_create, name="study-create"),
    path("studies/<int:study_id>/", studies.study_detail, name="study-detail"),
    path("packages/", packages.package_list, name="package-list"),
    path("packages/new/", packages.package_create, name="package-create"),
    path("packages/<int:package_id>/", packages.package_detail, name="package-detail"),
    path("packages/<int:package_id>/approve/", packages.package_approve, name="package-approve"),
    path("packages/<int:package_id>/refuse/", packages.package_refuse, name="package-refuse"),
    path("packages/<int:package_id>/revoke/", packages.package_revoke, name="package-revoke"),
    path("runs/", runs.run_list, name="run-list"),
    path("runs/new/", runs.run_create, name="run-create"),
    path("runs/<int:run_id>/", runs.run_detail, name="run-detail"),
    path("runs/<int:run_id>/live/", runs.run_live, name="run-live"),
    path("runs/<int:run_id>/curves/", runs.run_curves, name="run-curves"),
    path("runs/<int:run_id>/benefit/", runs.run_benefit, name="run-benefit"),
    path("runs/<int:run_id>/stop/", runs.run_stop, name="run-stop"),
    path("assignments/<int:assignment_id>/retry/", runs.assignment_retry, name="assignment-retry"),
    path("choices/", choices.model_choice_list, name="model-choice-list"),
    path("choices/<int:choice_id>/", choices.model_choice_detail, name="model-choice-detail"),
    path(
        "choices/<int:choice_id>/overrule/",
        choices.model_choice_overrule,
        name="model-choice-overrule",
    ),
    path(
        "choices/<int:choice_id>/take-back/",
        choices.model_choice_take_back,
        name="model-choice-take-back",
    ),
    path("models/", versions.model_version_list, name="model-version-list"),
    path("models/<int:version_id>/", versions.model_version_detail, name="model-version-detail"),
    path("models/<int:version_id>/live/", versions.model_version_live, name="model-version-live"),
    path(
        "models/<int:version_id>/distribute/",
        versions.model_version_distribute,
        name="model-version-distribute",
    ),
]
