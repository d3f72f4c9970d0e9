from typing import Any

from techlife.demonstration import table

MODELS = ("rule_of_thumb", "local", "global", "fine_tuned", "pooled")


def figures(auroc: float | None) -> dict[str, Any]:
    return {model: {"auroc": auroc} for model in MODELS}


def test_the_table_tells_no_small_count_and_the_figures_from_histograms() -> None:
    lines = list(
        table(
            {
                "num_examples": 1_241,
                "pooled_test": figures(0.65),
                "envoys": [
                    {"name": "alpha", "num_examples": None, **figures(0.7)},
                    {"name": "beta", "num_examples": None, **figures(None)},
                ],
                "from_histograms": {
                    "auroc": {"value": 0.652, "low": 0.651, "high": 0.653},
                    "auprc": None,
                },
            },
            {},
        )
    )
    assert [line.split() for line in lines[1:4]] == [
        ["alpha", "–", *["0.700"] * 5],
        ["beta", "–", *["–"] * 5],
        ["all", "test", "patients", "1,241", *["0.650"] * 5],
    ]
    assert lines[4:] == [
        "AUROC over all hospitals from exchanged score histograms 0.652 (0.651 to 0.653 possible)"
    ]
