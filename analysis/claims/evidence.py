"""What the claims are tested on: comparable architectures, their losses, the noise of these, and runtimes."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import published
from analysis.claims.statistics import (
    DRAWS,
    Array,
    half_draws,
    image_draws,
    pooled_sd,
    seed_factors,
)
from analysis.comparable import Choice, average_seeds, comparable, distinct_labels
from analysis.errors import AnalysisError
from analysis.load import Source
from analysis.runtimes import runtime_frame
from analysis.text import some

# Fewer images say too little of others to resample them.
MIN_IMAGES = 5
# Random halvings of the images that a point estimate is averaged over.
SPLITS = 64
_COMPONENTS = ("transform", "entropy_model", "hyper_transform")
_NEEDED = ("label", "lmbda", "rd_loss", "kmac_per_px_dec", *_COMPONENTS)
_OBJECTIVES = ["rd_loss", "kmac_per_px_dec"]


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """Comparable architectures, one row each, and what is known of their noise.

    architectures: results columns plus `cost` (decoder's kFLOP/px) and `loss`, seeds averaged, index 0..a-1.
    measure: what `loss` is. scores: (a, images) per-image loss or None. seed_sd, seed_freedom: of ln loss
    between seeds. runtimes: the columns of analysis.runtimes. checkpoints: pattern of the trained models'
    files; '' where they are not known. is_published: the study's own numbers, of which no noise is known.
    """

    name: str
    architectures: pd.DataFrame
    measure: str
    scores: Array | None = None
    seed_sd: float = np.nan
    seed_freedom: int = 0
    runtimes: pd.DataFrame = dataclasses.field(default_factory=runtime_frame)
    notes: tuple[str, ...] = ()
    checkpoints: str = ""
    is_published: bool = False
    draws: int = DRAWS
    rng_seed: int = 0

    @property
    def cost(self) -> Array:
        return self.architectures["cost"].to_numpy(dtype=np.float64)

    @property
    def loss(self) -> Array:
        return self.architectures["loss"].to_numpy(dtype=np.float64)

    @property
    def images(self) -> int:
        return 0 if self.scores is None else self.scores.shape[1]

    @functools.cached_property
    def loss_draws(self) -> Array | None:
        """(draws, a): losses as other images and other training seeds would have given; None if unknown."""
        if self.scores is None and not self.seed_freedom:
            return None
        rng = np.random.default_rng(self.rng_seed)
        drawn = (
            np.tile(self.loss, (self.draws, 1))
            if self.scores is None
            else image_draws(self.scores, self.draws, rng)
        )
        return drawn * self._seed_factors(rng)

    @functools.cached_property
    def half_draws(self) -> tuple[Array, Array] | None:
        """The same, from two disjoint halves of the images: one to choose by, one to judge by."""
        if self.scores is None:
            return None if self.loss_draws is None else (self.loss_draws, self.loss_draws)
        rng = np.random.default_rng(self.rng_seed + 2)
        one, other = half_draws(self.scores, self.draws, rng)
        factors = self._seed_factors(rng)
        return one * factors, other * factors

    @functools.cached_property
    def halves(self) -> tuple[Array, Array]:
        """Losses by disjoint halves of the images as they are, for random splits: (SPLITS, a) each."""
        if self.scores is None:
            return self.loss[None, :], self.loss[None, :]
        rng = np.random.default_rng(self.rng_seed + 3)
        return half_draws(self.scores, SPLITS, rng, resample=False)

    def _seed_factors(self, rng: np.random.Generator) -> Array:
        if not self.seed_freedom:
            return np.ones((1, 1))
        seeds = self.architectures["seeds"].to_numpy(dtype=np.float64)
        return seed_factors(self.seed_sd, self.seed_freedom, seeds, self.draws, rng)

    def members(self, **components: str) -> list[int]:
        """Rows with these components, cheapest first."""
        rows = self.architectures
        for name, value in components.items():
            rows = rows[rows[name] == value]
        return [int(index) for index in rows.sort_values("cost", kind="stable").index]

    def covers(self, *more: str) -> str:
        """Which noise the draws of the losses hold, besides `more`, and which not."""
        if self.is_published:
            return "nothing"
        images = [f"other images ({self.images} resampled)"] if self.scores is not None else []
        seeds = [f"other seeds ({self.seed_freedom} repeats)"] if self.seed_freedom else []
        missing = [] if images else ["other images"]
        missing += [] if seeds else ["training noise: one seed per architecture"]
        covered = " and ".join([*more, *images, *seeds]) or "nothing"
        return covered + (f"; not {', nor '.join(missing)}" if missing else "")


def gather(
    sources: Sequence[Source], choice: Choice | None = None, runtimes: Sequence[pd.DataFrame] = ()
) -> Evidence:
    """The comparable trials of all sources. AnalysisError where there is none, or columns are missing."""
    for source in sources:
        source.require(_NEEDED)
    trials = pd.concat([source.frame for source in sources], ignore_index=True)
    trials = trials.drop_duplicates(["spec_id", "arch_id", "lmbda", "seed", "dataset_hash"])
    selection = comparable(trials.reset_index(drop=True), _OBJECTIVES, choice)
    if selection.rows.empty:
        why = some(selection.reasons.drop_duplicates(), 3)
        raise AnalysisError(f"no trial of {', '.join(s.name for s in sources)} can be compared: {why}")
    images = pd.concat([source.images for source in sources], ignore_index=True)
    rows, scores, notes = _with_scores(distinct_labels(selection.rows), images)
    averaged = average_seeds(rows)
    groups = rows.groupby(["arch_id", "curve_id"], sort=False, dropna=False)
    sd, freedom = pooled_sd([np.log(group["rd_loss"].to_numpy(dtype=np.float64)) for _, group in groups])
    every = [*(source.runtimes for source in sources), *runtimes]
    return Evidence(
        name=" + ".join(source.name for source in sources),
        architectures=averaged.assign(cost=2 * averaged["kmac_per_px_dec"], loss=averaged["rd_loss"]),
        measure="rd_loss",
        scores=None if scores is None else np.stack([scores[group.index].mean(0) for _, group in groups]),
        seed_sd=sd,
        seed_freedom=freedom,
        runtimes=pd.concat(every, ignore_index=True).drop_duplicates(),
        notes=tuple(filter(None, [selection.message, *notes])),
        checkpoints=" ".join(_checkpoints(source.folder) for source in sources).strip(),
    )


def from_table1() -> Evidence:
    """The study's seven models: loss is their rate over that of BPG, and no noise is known."""
    table = published.table1()
    names = {"hyperprior": "mean_scale_hyperprior"}
    parts = {name: table[name].str.lower().replace(names) for name in _COMPONENTS}
    architectures = pd.DataFrame(
        {
            **parts,
            "label": table["model"],
            "arch_id": table["model"],
            "family": parts["transform"] + "/" + parts["entropy_model"] + "/" + parts["hyper_transform"],
            "channels": "not published",
            "layers": "not published",
            "latent_channels": 0,
            "seeds": 1,
            "cost": table["kflops_per_px_decode"],
            "loss": 1 - table["rate_saving_vs_bpg_pct"] / 100,
        }
    )
    # CLIC's images differ in size; what counts is that both sets stay apart.
    sides = {"Kodak": (512, 768), "CLIC": (1365, 2048)}
    cost, speed = architectures["cost"].tolist(), table.to_dict("list")
    timed = [
        {
            **{name: architectures.at[row, name] for name in ("arch_id", "label", "family")},
            "device": device,
            "device_slug": device.lower(),
            "height_px": sides[images][0],
            "width_px": sides[images][1],
            "threads": 1,
            "kflop_per_px_dec": cost[row],
            "dec_net_ms": sides[images][0] * sides[images][1] / 1e3 / speed[name][row],
        }
        for name, (device, images) in published.SPEEDS.items()
        for row in architectures.index
    ]
    return Evidence(
        name=published.TITLE,
        architectures=architectures,
        measure="rate at BPG's PSNR",
        runtimes=runtime_frame(timed),
        is_published=True,
    )


def _checkpoints(folder: Path) -> str:
    """As short as it works from the current folder."""
    if not (folder / "trials").is_dir():
        return ""
    below = folder.resolve()
    near = below.relative_to(Path.cwd()) if below.is_relative_to(Path.cwd()) else folder
    return shlex.quote(str(near)) + "/trials/*/model.safetensors"


def _with_scores(rows: pd.DataFrame, images: pd.DataFrame) -> tuple[pd.DataFrame, Array | None, list[str]]:
    """Trials that have rd_loss of all images, a (trials, images) array of it, and notes on those left out.

    Without any per-image score all trials stay and the array is None.
    """
    rows = rows.reset_index(drop=True)
    known = images[images["spec_id"].isin(rows["spec_id"])].drop_duplicates(["spec_id", "image"])
    if known.empty:
        return rows, None, ["no per-image scores: name the sweep's folder, not its table"]
    wide = known.pivot(index="spec_id", columns="image", values="rd_loss").reindex(rows["spec_id"])
    scores = wide.to_numpy(dtype=np.float64)
    if scores.shape[1] < MIN_IMAGES:
        return (
            rows,
            None,
            [f"{scores.shape[1]} evaluation images are too few to resample: {MIN_IMAGES} at least"],
        )
    whole = np.isfinite(scores).all(axis=1)
    agree = np.isclose(scores.mean(axis=1), rows["rd_loss"].to_numpy(dtype=np.float64), rtol=1e-3)
    notes = []
    for wrong, why in (
        (~whole, "lack some image's score"),
        (whole & ~agree, "have an rd_loss that is not the mean of their images'"),
    ):
        if wrong.any():
            notes.append(f"{wrong.sum()} trials {why}, and are left out: {some(rows['label'][wrong])}")
    keep = whole & agree
    if not keep.any():
        return rows, None, [*notes, "no trial is left with whole per-image scores; none is used"]
    return rows[keep].reset_index(drop=True), scores[keep], notes
