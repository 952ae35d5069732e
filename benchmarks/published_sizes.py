"""Parameters and decoding cost of every preset beside the published figures: the tables of docs/models.md.

    python benchmarks/published_sizes.py            # seconds; no weights are made and nothing is computed

Cost is the parity count of rdc/complexity.py: 2 FLOP per multiply-accumulate, decoder networks alone, one
512x768 image, masked kernels dense. Figures "by layers" are sums by hand over the published layers.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Published:
    """What is published of a model. without_g_a: whether the parameters leave g_a out (docs/models.md)."""

    name: str
    overrides: tuple[str, ...]
    params_m: float
    kflop_per_px: float
    source: str
    without_g_a: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """A model as built, beside what is published of it. total_m: all parameters."""

    published: Published
    params_m: float
    total_m: float
    kflop_per_px: float
    parts: dict[str, float]  # decode kFLOP/px

    @property
    def params_error(self) -> float:
        return self.params_m / self.published.params_m - 1

    @property
    def cost_error(self) -> float:
        return self.kflop_per_px / self.published.kflop_per_px - 1


TABLE_1 = "ICIP 2023, Table 1"
BY_LAYERS = "by layers"


def _preset(name: str, params_m: float, kflop_per_px: float, source: str, **options: Any) -> Published:
    return Published(name, (f"model={name}",), params_m, kflop_per_px, source, **options)


STUDY = (
    _preset("rdc_a", 38.0, 1076.4, TABLE_1, without_g_a=True),
    _preset("rdc_b", 31.6, 631.1, TABLE_1, without_g_a=True),
    _preset("rdc_c", 32.2, 392.5, TABLE_1),
    _preset("rdc_d", 22.4, 342.1, TABLE_1),
    _preset("rdc_e", 17.3, 252.1, TABLE_1),
    _preset("rdc_f", 19.8, 200.1, TABLE_1),
    _preset("rdc_g", 12.8, 117.4, TABLE_1),
)

# Other readings of the same table: each keeps one of its figures at the price of another, or of tidiness.
ALTERNATIVES = (
    _preset("rdc_a_full_count", 38.0, 1076.4, TABLE_1),
    _preset("rdc_a_all_support", 38.0, 1076.4, TABLE_1, without_g_a=True),
    _preset("rdc_b_param_matched", 31.6, 631.1, TABLE_1),
    _preset("rdc_d_m320", 22.4, 342.1, TABLE_1),
    _preset("rdc_e_depth2", 17.3, 252.1, TABLE_1),
    _preset("rdc_g_hyper_as_f", 12.8, 117.4, TABLE_1, without_g_a=True),
)


def _zoo(name: str, quality: int, params_m: float, kflop_per_px: float) -> Published:
    overrides = ("model=compressai", f"compressai.name={name}", f"compressai.quality={quality}")
    return Published(f"{name}, quality {quality}", overrides, params_m, kflop_per_px, BY_LAYERS)


REFERENCES = (
    _preset("scale_hyperprior", 5.076, 87.08, BY_LAYERS),
    _zoo("bmshj2018-hyperprior", 6, 11.816, 193.96),
    _preset("mean_scale_hyperprior", 7.028, 95.13, BY_LAYERS),
    _zoo("mbt2018-mean", 5, 17.562, 217.24),
    _preset("joint_autoregressive", 14.130, 215.85, BY_LAYERS),
    _zoo("mbt2018", 5, 25.505, 279.27),
    _preset("charm", 113.982, 962.25, BY_LAYERS),
    _preset("elic", 32.074, 612.14, BY_LAYERS),
    _preset("swint_hyperprior_s", 9.112, 256.62, BY_LAYERS),
    _preset("swint_hyperprior", 24.658, 530.56, BY_LAYERS),
    _preset("swint_charm", 32.550, 592.18, BY_LAYERS),
    _preset("conv_hyperprior", 21.379, 510.09, BY_LAYERS),
    _preset("conv_charm", 29.271, 571.71, BY_LAYERS),
)


def row(published: Published) -> Row:
    """Build the model without storage and count it."""
    from conf import compose
    from rdc.complexity import measure
    from rdc.configured import model_of

    described = measure(model_of(compose(published.overrides))).to_dict()
    total_m = described["params"]["total"] / 1e6
    without_m = described["params"]["total_without_g_a"] / 1e6
    costs = {name: part["decode_parity_kflop_per_px"] for name, part in described["parts"].items()}
    return Row(
        published=published,
        params_m=without_m if published.without_g_a else total_m,
        total_m=total_m,
        kflop_per_px=described["decode"]["parity_kflop_per_px"],
        parts={name: cost for name, cost in costs.items() if cost},
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    heads = ("model", "published M / kFLOP/px", "parameters", "decode kFLOP/px", "h_s", "context", "g_s")
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    for one in rows:
        published = one.published
        if published.without_g_a:
            params = (
                f"{one.params_m:.2f} M without g_a ({_percent(one.params_error)}), {one.total_m:.2f} M in all"
            )
        else:
            params = f"{one.params_m:.2f} M ({_percent(one.params_error)})"
        parts = [f"{one.parts[p]:.2f}" if p in one.parts else "-" for p in ("h_s", "context", "g_s")]
        figures = f"{published.params_m:.1f} / {published.kflop_per_px:.1f}"
        if published.source == BY_LAYERS:
            figures = f"{published.params_m:.2f} / {published.kflop_per_px:.2f}"
        cost = f"{one.kflop_per_px:.2f} ({_percent(one.cost_error)})"
        lines.append(" | ".join((published.name, figures, params, cost, *parts)))
    return "\n".join(f"| {line} |" for line in lines)


def _percent(share: float) -> str:
    text = f"{share:+.2%}"
    return text if float(text[:-1]) else "0.00%"


def main(argv: Sequence[str] | None = None) -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    from rdc.lean_import import lean_compressai

    lean_compressai()
    for title, group in (
        ("The study's models", STUDY),
        ("Other readings of them", ALTERNATIVES),
        ("Reference models", REFERENCES),
    ):
        print(f"{title}\n\n{table([row(published) for published in group])}\n")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
