"""Fits the projection of a frozen image encoder's vectors into a frozen text encoder's space.

Legend: n photos, k distinct descriptions, i the image encoder's width, t the text encoder's.

Settings are chosen on what the fit has not seen: photos of descriptions it knows, and photos of descriptions that were
left out, since a catalogue gets new products all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from pydantic import Field

from endcap.core.determinism import rng
from endcap.core.errors import CallerError
from endcap.core.section import Section
from endcap.core.types import Float32Array, Int64Array
from endcap.encoders.align import Alignment, Settings, unit

DISCOUNTS = tuple(step / 10 for step in range(10))
FEWEST = 10  # descriptions, below which none is left out to choose by
RIDGE_TEMPERATURE = 0.1


class AlignmentConfig(Section):
    """How the projection is fitted. Of several values, the one that does best on what was left out is taken."""

    method: Literal["contrastive", "ridge"] = Field(
        default="contrastive", description="tell each photo's description from all others, or least squares"
    )
    temperatures: tuple[float, ...] = Field(
        default=(0.05, 0.1, 0.2), min_length=1, description="of the contrastive softmax over descriptions, to choose of"
    )
    decays: tuple[float, ...] = Field(
        default=(1.0, 10.0), min_length=1, description="weight decay of the contrastive fit, to choose of"
    )
    strengths: tuple[float, ...] = Field(
        default=(0.01, 0.03, 0.1, 0.3, 1.0),
        min_length=1,
        description="regularisation of least squares, as a share of the photos' mean variance, to choose of",
    )
    epochs: int = Field(default=20, ge=1, description="of the contrastive fit")
    batch_size: int = Field(default=256, ge=1, description="photos in a step")
    learning_rate: float = Field(default=0.003, gt=0, description="at its highest")
    left_out: float = Field(default=0.2, gt=0, lt=1, description="share of the descriptions left out to choose by")
    rotations: int = Field(default=2, ge=1, description="how often others are left out")
    seed: int = Field(default=0, ge=0, description="of what is left out and of the order of steps")


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to fit. strength: of least squares; else the temperature and decay of the contrastive fit."""

    temperature: float
    decay: float = 0.0
    strength: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """images: float32 [n, i]. texts: float32 [k, t], distinct. shows: int64 [n], the description of each photo."""

    images: Float32Array
    texts: Float32Array
    shows: Int64Array

    def select(self, photos: Int64Array) -> Pairs:
        return Pairs(self.images[photos], self.texts, self.shows[photos])


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """learned: what is fitted on. known: further photos of its descriptions. new: photos of others."""

    learned: Pairs
    known: Pairs
    new: Pairs


def fit_alignment(
    images: Float32Array,
    texts: Float32Array,
    config: AlignmentConfig | None = None,
    *,
    held_out: tuple[Float32Array, Float32Array] | None = None,
    new_share: float | None = None,
) -> Alignment:
    """images: float32 [n, i], a photo a row. texts: float32 [n, t], unit rows, what each photo shows; photos of one
    product have equal rows. held_out: further photos and their texts, which settings are chosen by and nothing is
    learned from; without it a part of the photos is left out while choosing. new_share: how many of the photos that
    will be asked about show what no photo was learned from, from 0 to 1; left out, the discount favours neither kind.

    Raises CallerError where the rows do not match, or there are fewer than two descriptions.
    """
    config = config or AlignmentConfig()
    pairs = _pairs(images, texts)
    trials = _trials(pairs, held_out, config)
    setting, reached = _chosen(trials, config)
    discount = _discount([fit(trial.learned, setting, config) for trial in trials], trials, new_share)
    fitted = fit(pairs, setting, config)
    how: dict[str, str | float] = {"method": config.method, "decay": setting.decay, "mean_reciprocal_rank": reached}
    if setting.strength is not None:
        how["strength"] = setting.strength
    return Alignment(fitted.weights, fitted.bias, fitted.learned, Settings(setting.temperature, discount, how))


def fit(pairs: Pairs, setting: Setting, config: AlignmentConfig) -> Alignment:
    """By one setting, without a discount."""
    centre = pairs.images.mean(axis=0)
    shifted = pairs.images - centre
    scale = float(np.sqrt(np.mean(np.sum(np.square(shifted), axis=1)))) or 1.0
    inner = Pairs(shifted / np.float32(scale), pairs.texts, pairs.shows)
    if setting.strength is not None:
        weights, bias = _ridge(inner, setting.strength)
    else:
        from endcap.encoders.align_contrast import contrast

        weights, bias = contrast(inner, setting.temperature, setting.decay, config)
    weights = weights / np.float32(scale)
    bias = bias - centre @ weights
    projected = unit(pairs.images @ weights + bias)
    return Alignment(weights, bias, _centres(projected, pairs.shows), Settings(setting.temperature))


def _pairs(images: Float32Array, texts: Float32Array) -> Pairs:
    """Photos without a vector, or whose text has none, are left out."""
    if images.ndim != 2 or texts.ndim != 2 or len(images) != len(texts):
        raise CallerError(
            f"The photos have the shape {images.shape} and their texts {texts.shape}.",
            where="alignment",
            next_step="Give a row of each for every photo.",
        )
    usable = images.any(axis=1) & texts.any(axis=1)
    distinct, shows = np.unique(texts[usable], axis=0, return_inverse=True)
    if len(distinct) < 2:
        raise CallerError(
            f"There are photos of {len(distinct)} description; two or more are needed.",
            where="alignment",
            next_step="Give photos of several products.",
        )
    return Pairs(images[usable].astype(np.float32), distinct.astype(np.float32), shows.reshape(-1).astype(np.int64))


def _trials(pairs: Pairs, held_out: tuple[Float32Array, Float32Array] | None, config: AlignmentConfig) -> list[Trial]:
    """One for each rotation; none where there are too few descriptions to leave any out."""
    if len(pairs.texts) < FEWEST:
        return []
    draws, trials = rng(config.seed, "alignment"), []
    for _ in range(config.rotations):
        count = max(1, round(config.left_out * len(pairs.texts)))
        is_new = np.zeros(len(pairs.texts), np.bool_)
        is_new[draws.permutation(len(pairs.texts))[:count]] = True
        photo_is_new = is_new[pairs.shows]
        aside = draws.random(len(pairs.shows)) < config.left_out if held_out is None else np.zeros_like(photo_is_new)
        learned = pairs.select(np.flatnonzero(~photo_is_new & ~aside))
        known = pairs.select(np.flatnonzero(~photo_is_new & aside))
        if held_out is not None:
            known = _placed(held_out, pairs.texts)
            known = known.select(np.flatnonzero(~is_new[known.shows]))
        trials.append(Trial(learned, known, pairs.select(np.flatnonzero(photo_is_new))))
    return [trial for trial in trials if len(trial.known.shows) and len(np.unique(trial.learned.shows)) > 1]


def _placed(held_out: tuple[Float32Array, Float32Array], texts: Float32Array) -> Pairs:
    """Held-out photos of the descriptions that are known; others are of no use here."""
    images, theirs = held_out
    nearest = np.argmax(theirs @ texts.T, axis=1)
    same = np.flatnonzero(np.isclose(theirs, texts[nearest], atol=1e-6).all(axis=1))
    return Pairs(images[same].astype(np.float32), texts, nearest[same].astype(np.int64))


def _settings(config: AlignmentConfig) -> list[Setting]:
    if config.method == "ridge":
        return [Setting(RIDGE_TEMPERATURE, strength=strength) for strength in config.strengths]
    return [Setting(temperature, decay) for temperature, decay in product(config.temperatures, config.decays)]


def _chosen(trials: Sequence[Trial], config: AlignmentConfig) -> tuple[Setting, float]:
    """The best, and the mean reciprocal rank it reached, known and new descriptions weighing the same. The middle one
    where there is nothing to choose by."""
    settings = _settings(config)
    if len(settings) == 1 or not trials:
        return settings[len(settings) // 2], 0.0
    reached = []
    for setting in settings:
        ranks = [reciprocal_ranks(fit(trial.learned, setting, config), trial) for trial in trials]
        reached.append(float(np.mean(ranks)))
    best = int(np.argmax(reached))
    return settings[best], round(reached[best], 6)


def _discount(fits: Sequence[Alignment], trials: Sequence[Trial], new_share: float | None) -> float:
    """That of the highest mean of what known and what new descriptions reach: by their shares, else the harmonic."""
    if not trials:
        return 0.0
    reached = []
    for discount in DISCOUNTS:
        ranks = []
        for one, trial in zip(fits, trials, strict=True):
            discounted = Alignment(one.weights, one.bias, one.learned, Settings(one.settings.temperature, discount))
            known, new = reciprocal_ranks(discounted, trial)
            if new_share is None:
                ranks.append(2 * known * new / (known + new))
            else:
                ranks.append((1 - new_share) * known + new_share * new)
        reached.append(float(np.mean(ranks)))
    return DISCOUNTS[int(np.argmax(reached))]


def reciprocal_ranks(alignment: Alignment, trial: Trial) -> tuple[float, float]:
    """Of the right description among all, for photos of known and of new ones; means over photos."""
    known, new = (float(np.mean(1 / ranks(alignment, pairs))) for pairs in (trial.known, trial.new))
    return known, new


def ranks(alignment: Alignment, pairs: Pairs) -> Int64Array:
    """int64 [n]: how many descriptions fit each photo as well as its own does, or better."""
    scores = alignment.texts_for(alignment.project(pairs.images), pairs.texts)
    own = scores[np.arange(len(scores)), pairs.shows]
    found: Int64Array = (scores >= own[:, None]).sum(axis=1).astype(np.int64)
    return found


def _ridge(pairs: Pairs, strength: float) -> tuple[Float32Array, Float32Array]:
    """Least squares in closed form, the targets centred as the photos are."""
    photos = pairs.images.astype(np.float64)
    targets = pairs.texts.astype(np.float64)[pairs.shows]
    bias = targets.mean(axis=0)
    gram = photos.T @ photos
    gram[np.diag_indices_from(gram)] += strength * np.trace(gram) / len(gram)
    weights = np.linalg.solve(gram, photos.T @ (targets - bias))
    return weights.astype(np.float32), bias.astype(np.float32)


def _centres(projected: Float32Array, shows: Int64Array) -> Float32Array:
    """The mean of the projected photos of each description that has any, of unit length."""
    present, places = np.unique(shows, return_inverse=True)
    sums = np.zeros((len(present), projected.shape[1]), np.float32)
    np.add.at(sums, places.reshape(-1), projected)
    return unit(sums)
