"""What a policy may know of each item without the user: what the model has learned of it, and how
it fared in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastgaum.errors import ConfigError
from fastgaum.worlds.catalogue import Catalogue
from fastgaum.worlds.world import FloatArray

N_STATISTICS = 3
SAMPLE = 200_000
"""items that the principal components are found on; more have no say in them but are mapped alike
"""


def item_features(
    catalogue: Catalogue, tables: Sequence[FloatArray], n_features: int
) -> FloatArray:
    """Features of each item, (n_items, ≤ n_features): principal components, then log displays, log
    choices, choice rate.

    The components are of the rows that the items add to the reward models' first layers, `tables`
    side by side, divided by the standard deviation of the first one, so that their relative sizes
    stay; the entry of largest absolute weight in a component is positive. The statistics are
    standardised. There are fewer features where the tables have fewer columns.

    Raises:
        ConfigError: fewer features than statistics are asked for.
    """
    if n_features < N_STATISTICS:
        raise ConfigError(
            f"n_features must be at least {N_STATISTICS}, the training statistics, got {n_features}"
        )
    statistics = _standardised(catalogue.training_numbers)
    vectors = (
        np.concatenate([table[: catalogue.n_items] for table in tables], axis=1)
        if tables
        else statistics[:, :0]
    )
    n_components = min(n_features - N_STATISTICS, vectors.shape[1])
    if n_components == 0:
        return statistics
    sample = vectors[:: -(-len(vectors) // SAMPLE)].astype(np.float64)
    mean = sample.mean(axis=0)
    values, axes = np.linalg.eigh((sample - mean).T @ (sample - mean) / len(sample))
    axes = axes[:, ::-1][:, :n_components]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.where(axes[largest, np.arange(n_components)] < 0, -1.0, 1.0)
    scale = np.sqrt(max(float(values[-1]), 1e-12))
    components = (vectors - mean.astype(np.float32)) @ (axes / scale).astype(np.float32)
    return np.ascontiguousarray(np.concatenate([components, statistics], axis=1), np.float32)


def _standardised(numbers: FloatArray) -> FloatArray:
    scale = numbers.std(axis=0)
    return np.asarray(
        (numbers - numbers.mean(axis=0)) / np.where(scale > 1e-6, scale, np.float32(1)), np.float32
    )
