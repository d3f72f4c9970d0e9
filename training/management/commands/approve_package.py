import json
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
    help = "Approve a hospital's training package as its doctor; without a hash, read its plan."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("envoy", help="name, slug or id")
        parser.add_argument("--user", required=True, help="username of a doctor of the hospital")
        parser.add_argument("--plan-hash", help="of the plan that was read; prints it if left out")
        add_study_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        envoy, user = envoy_named(options["envoy"]), user_named(options["user"])
        packages = StudyMembership.objects.filter(study=study_of(options), envoy=envoy)
        newest = packages.order_by("-packaged_at", "-pk").first()
        if newest is None:
            raise NotApprovedError(
                f"{envoy} has no training package yet: package_training {envoy.slug}"
            )
        plan_hash = options["plan_hash"]
        if plan_hash is None:
            self.stdout.write(json.dumps(newest.plan, indent=2, sort_keys=True))
            self.stderr.write(
                f"To approve this plan, add --plan-hash {newest.plan_sha256}",
                style_func=self.style.NOTICE,
            )
            return
        membership = packages.filter(plan_sha256=plan_hash).first() or newest
        services.approve_package(membership, approved_by=user, plan_hash=plan_hash)
        self.stdout.write(
            f"{envoy} takes part: {user} approved the plan {plan_hash[:12]}\n"
            f"  next: launch_training {envoy.slug}"
        )
