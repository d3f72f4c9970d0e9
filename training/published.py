"""The published paths about training: a contract with existing clients."""

from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions, status
from rest_framework.response import Response

from envoys.lookup import visible_envoy
from envoys.models import Envoy
from envoys.rest import Call, UserRequest, starts_work
from training import serializers, services
from training.models import Study


def main_study() -> Study:
    """The published paths know of one study."""
    return services.study_for("risk_tier")


class LaunchView(Call):
    @starts_work
    @extend_schema(request=None, responses={202: serializers.PublishedLaunchSerializer})
    def post(self, request: UserRequest, envoy: str) -> Response:
        """Train one envoy, by number or name, in the open round."""
        chosen = visible_envoy(request.user, envoy)
        assignment = services.launch_training(main_study(), chosen, launched_by=request.user)
        return Response(
            {
                "message": f"{chosen} trains; aggregate once it has finished.",
                "run": assignment.training_round.run_id,
                "assignment": assignment.pk,
            },
            status=status.HTTP_202_ACCEPTED,
            headers={"Location": reverse("api:assignment-detail", args=[assignment.pk])},
        )


class AggregateView(Call):
    @starts_work
    @extend_schema(
        request={
            "application/json": {
                "type": "array",
                "items": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
                "description": "numbers or names of envoys",
                "example": [1, 2, 3],
            }
        },
        responses={202: serializers.PublishedVersionSerializer},
    )
    def post(self, request: UserRequest) -> Response:
        """Aggregate these envoys' updates; `model_version` is the number that comes of it.

        A worker does it. `Location` is the round to watch, and distributing waits for it.
        """
        study = main_study()
        training_round = services.aggregate_envoys(
            study, _envoys(request), aggregated_by=request.user
        )
        number = services.number_to_come(study)
        return Response(
            {"message": f"Global version {number} is being made.", "model_version": number},
            status=status.HTTP_202_ACCEPTED,
            headers={"Location": reverse("api:round-detail", args=[training_round.pk])},
        )


def _envoys(request: UserRequest) -> list[Envoy]:
    named = request.data
    if not isinstance(named, list) or not all(
        isinstance(each, int | str) and not isinstance(each, bool) for each in named
    ):
        raise exceptions.ValidationError("The body is a list of envoys' numbers or names.")
    return [visible_envoy(request.user, str(each)) for each in named]


class DistributeView(Call):
    is_long = True  # reads and writes in storage

    @starts_work
    @extend_schema(request=None, responses={202: serializers.PublishedDistributionSerializer})
    def post(self, request: UserRequest) -> Response:
        """Release the newest global version, and send it to every active envoy."""
        version = services.newest_version(main_study())
        distributions = services.distribute_version(version, distributed_by=request.user)
        url = f"{reverse('api:distribution-list')}?model_version={version.pk}"
        return Response(
            {
                "message": f"Global version {version.number} is released and on its way.",
                "model_version": version.number,
                "envoys": [distribution.envoy.name for distribution in distributions],
            },
            status=status.HTTP_202_ACCEPTED,
            headers={"Location": url},
        )
