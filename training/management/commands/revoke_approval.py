from typing import Any

from django.core.management.base import CommandParser

from envoys.lookup import envoy_named, user_named
from training import services
from training.errors import NotApprovedError
from training.management.federation_command import (
    FederationCommand,
    add_study_arguments,
    study_of,
)
from training.models import StudyMembership


class Command(FederationCommand):
    help = "Withdraw a hospital's approval as its doctor: from the next launch on."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("envoy", help="name, slug or id")
        parser.add_argument("--user", required=True, help="username of a doctor of the hospital")
        parser.add_argument("--plan-hash", help="of which plan; every approved one if left out")
        add_study_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        envoy, user = envoy_named(options["envoy"]), user_named(options["user"])
        approved = StudyMembership.objects.standing().filter(study=study_of(options), envoy=envoy)
        if options["plan_hash"]:
            approved = approved.filter(plan_sha256=options["plan_hash"])
        memberships = list(approved.order_by("pk"))
        if not memberships:
            raise NotApprovedError(f"{envoy} has not approved such a plan: nothing to revoke")
        for membership in memberships:
            services.revoke_approval(membership, revoked_by=user)
            self.stdout.write(f"{envoy}: {user} revoked the plan {membership.plan_sha256[:12]}")
        self.stdout.write(f"  to take part again: approve_package {envoy.slug} --user {user}")
