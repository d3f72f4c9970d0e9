from typing import Any

from django.core.management.base import CommandError, CommandParser

from envoys.lookup import envoy_named, user_named
from inference import services
from inference.models import InferenceRun
from training.management.federation_command import (
    FederationCommand,
    add_study_arguments,
    add_wait_argument,
    study_of,
)

VERSIONS = {"global": services.global_version, "envoy": services.own_version}


class Command(FederationCommand):
    help = "Score every admission of a hospital."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("envoy", help="name, slug or id")
        parser.add_argument(
            "--model",
            choices=sorted(VERSIONS),
            default="global",
            help="the federation's, as delivered there, or the hospital's own (global)",
        )
        add_study_arguments(parser)
        parser.add_argument("--user", help="username of who asks for it")
        add_wait_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        envoy = envoy_named(options["envoy"])
        user = user_named(options["user"]) if options["user"] else None
        version = VERSIONS[options["model"]](study_of(options), envoy)
        inference_run = services.request_inference(envoy, version, requested_by=user)
        self.stdout.write(f"{envoy}: scoring {inference_run.num_total:,} admissions with {version}")
        if options["wait"]:
            self.wait_for([inference_run])
            if inference_run.status == InferenceRun.Status.FAILED:
                raise CommandError(f"{envoy} was not scored: {inference_run.reason}")
            self.stdout.write(f"  {inference_run.counts_in_words()}")
