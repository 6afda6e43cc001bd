"""How far raters agree: shares, Cohen's κ of two and Fleiss' κ of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def fleiss_kappa(counts: np.ndarray) -> float:
    """Returns Fleiss' κ of `counts`, int [subjects, categories]: how many raters put a subject into a category.

    All subjects have the same number of raters, at least two. NaN where all answers are one category, when chance alone
    agrees wholly. Source: Fleiss 1971, "Measuring nominal scale agreement among many raters", Psychol. Bull. 76, 378.
    Raises `ValueError` for other numbers of raters.
    """
    counts = np.asarray(counts, np.float64)
    raters = counts.sum(axis=1)
    if not len(counts) or (raters != raters[0]).any() or raters[0] < 2:
        raise ValueError(
            f"each subject needs the same number of raters, at least 2; got {sorted(set(raters.tolist()))}"
        )
    agreement = ((counts**2).sum(axis=1) - raters) / (raters * (raters - 1))
    expected = ((counts.sum(axis=0) / counts.sum()) ** 2).sum()
    return math.nan if expected == 1 else float((agreement.mean() - expected) / (1 - expected))


def pair(first: Mapping[int, str], second: Mapping[int, str], classes: Sequence[str]) -> dict[str, Any]:
    """Returns `images` that both labelled, the share `agree` and Cohen's `kappa`; None where they are undefined."""
    shared = sorted(first.keys() & second.keys())
    mine, theirs = [first[image] for image in shared], [second[image] for image in shared]
    same = sum(a == b for a, b in zip(mine, theirs, strict=True))
    return {"images": len(shared), "agree": share(same, len(shared)), "kappa": _cohen(mine, theirs, classes)}


def among(by_rater: Mapping[str, Mapping[int, str]], classes: Sequence[str]) -> dict[str, Any]:
    """Returns, of the `images` that every one of two or more raters labelled, the share they `disagree` on and `kappa`.

    `kappa` is Fleiss'; None where there are no such images, or it is undefined.
    """
    raters = list(by_rater.values())
    shared = sorted(set.intersection(*map(set, raters))) if len(raters) > 1 else []
    counts = np.array([[sum(one[image] == name for one in raters) for name in classes] for image in shared])
    split = int((counts.max(axis=1) < len(raters)).sum()) if shared else 0
    kappa = fleiss_kappa(counts) if shared else math.nan
    return {
        "images": len(shared),
        "disagree": share(split, len(shared)),
        "kappa": None if math.isnan(kappa) else kappa,
    }


def share(part: int, whole: int) -> float | None:
    """Returns part ÷ whole, None of nothing."""
    return part / whole if whole else None


def _cohen(mine: Sequence[str], theirs: Sequence[str], classes: Sequence[str]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if not mine or len({*mine, *theirs}) == 1:
        return None
    return float(cohen_kappa_score(mine, theirs, labels=[name for name in classes if name in {*mine, *theirs}]))
