from django.apps import AppConfig


class BenchConfig(AppConfig):
    """Installed by `techlife.bench.settings` only: there every hospital's rows are made up."""

    name = "techlife.bench"

    def ready(self) -> None:
        from federated import datasets
        from federated.targets import DIAGNOSES
        from techlife.bench.hospitals import SOURCE
        from techlife.bench.workloads import INPUT_NAMES, register_inputs
        from training.services.packages import REFERENCE_SCALING

        register_inputs()
        REFERENCE_SCALING.update(dict.fromkeys(INPUT_NAMES, (1.0, 2.0)))
        datasets.register(DIAGNOSES, SOURCE)
