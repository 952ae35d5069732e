"""Whether files grow with lmbda: bytes of a model of variable rate from each measured code to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

# Files were written whatever the likelihoods had promised.
CODED = ("ok", "rate_mismatch")
NO_SEED = 0  # of tables that tell none
# bpp times pixels over 8 is a whole number of bytes but for a double's last digits.
_ROUNDING_BYTES = 1e-3


@dataclasses.dataclass(frozen=True)
class Violation:
    """Files that do not grow from one code to the next. image: '' for the mean over the set."""

    image: str
    lmbda: float
    next_lmbda: float
    bytes: float
    next_bytes: float

    @property
    def fall_pct(self) -> float:
        """Of the bytes, in per cent; 0 where they stay the same."""
        return 100 * (1 - self.next_bytes / self.bytes)


@dataclasses.dataclass(frozen=True, eq=False)
class ByteSteps:
    """The measured codes of one seed, by rising lmbda.

    codes: rate codes, -1 where the table has none. bytes: (codes, images). status: of each trial.
    refused: why there is nothing to judge; the rest is empty then. repeated: trials left out because another
    has the same code.
    """

    seed: int
    lmbdas: tuple[float, ...]
    codes: tuple[int, ...]
    status: tuple[str, ...]
    images: tuple[str, ...]
    bytes: npt.NDArray[np.float64]
    repeated: int = 0
    refused: str = ""

    @property
    def mean_bytes(self) -> npt.NDArray[np.float64]:
        """(codes,): mean over images."""
        return np.asarray(self.bytes.mean(axis=1))

    @property
    def steps(self) -> int:
        """From one code to the next."""
        return max(0, len(self.lmbdas) - 1)

    def mean_violations(self) -> list[Violation]:
        """Where the mean over the set does not rise strictly."""
        mean = self.mean_bytes
        return [self._violation("", place, mean) for place in _not_rising(mean)]

    def image_violations(self) -> list[Violation]:
        """The same of every image by itself."""
        return [
            self._violation(image, place, self.bytes[:, column])
            for column, image in enumerate(self.images)
            for place in _not_rising(self.bytes[:, column])
        ]

    def _violation(self, image: str, place: int, values: npt.NDArray[np.float64]) -> Violation:
        return Violation(
            image, self.lmbdas[place], self.lmbdas[place + 1], float(values[place]), float(values[place + 1])
        )


def byte_steps(trials: pd.DataFrame, images: pd.DataFrame) -> tuple[ByteSteps, ...]:
    """One per seed. trials: of one model of variable rate. images: the columns of analysis.images."""
    coded = trials[trials["status"].isin(CODED)]
    coded = coded.assign(seed=coded["seed"].fillna(NO_SEED))
    every = images[images["spec_id"].isin(set(coded["spec_id"]))]
    table = every.assign(bytes=_bytes(every)).pivot_table(
        index="spec_id", columns="image", values="bytes", aggfunc="first", dropna=False
    )
    return tuple(
        _of_seed(seed, coded[coded["seed"] == seed], table)
        for seed in sorted(map(int, coded["seed"].unique()))
    )


def _of_seed(seed: int, trials: pd.DataFrame, table: pd.DataFrame) -> ByteSteps:
    rows = trials.sort_values(["lmbda", "weights_sha256"], kind="stable")
    # Two lmbdas with one code are one rate; the trial that trained comes before one that only measured.
    code = rows["lmbda_code"].astype("Float64")
    same = rows["lmbda"].duplicated() | (code.notna() & code.duplicated())
    repeated = int(same.sum())
    rows = rows[~same]
    if lacking := sorted(set(rows["spec_id"]) - set(table.index)):
        return _refused(seed, f"{len(lacking)} of {len(rows)} rates have no scores of single images")
    found = table.loc[rows["spec_id"]]
    if (gaps := found.isna().any()).any():
        return _refused(seed, f"not every rate has a score of {gaps.idxmax()}")
    return ByteSteps(
        seed,
        tuple(rows["lmbda"]),
        tuple(rows["lmbda_code"].fillna(-1).astype(int)),
        tuple(rows["status"]),
        tuple(map(str, found.columns)),
        found.to_numpy(dtype=np.float64),
        repeated,
    )


def _refused(seed: int, why: str) -> ByteSteps:
    return ByteSteps(seed, (), (), (), (), np.empty((0, 0)), refused=why)


def _bytes(images: pd.DataFrame) -> pd.Series:
    """Of whole coded files: whole numbers, so that equal files are equal; as they are in rounded tables."""
    exact = images["bpp"] * images["width_px"] * images["height_px"] / 8
    whole = exact.round()
    return whole.where((exact - whole).abs() <= _ROUNDING_BYTES, exact)


def _not_rising(values: Sequence[float] | npt.NDArray[np.float64]) -> list[int]:
    """Places whose next value is not greater."""
    return [int(place) for place in np.flatnonzero(np.diff(values) <= 0)]
