"""Baselines whose scores are not yet choice probabilities choose their epoch by the likelihood they will be used with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastgaum.baselines.base import validation_nll
from fastgaum.baselines.gradient import GradientBaseline
from fastgaum.metrics.precision import precision_at_k
from fastgaum.models.tensors import BatchTensors
from fastgaum.sessions.features import EncodedSessions


@dataclass(eq=False)
class LinkedGradientBaseline(GradientBaseline):
    """Base of networks trained on another loss than the display set's (per item, or over the catalogue).

    Their epoch is chosen by the NLL of the validation choices after the best link, not by the training loss, which says
    little of how candidates of one display stand to one another.
    """

    def _validate(self, fixed: list[BatchTensors], validation: EncodedSessions) -> tuple[float, float]:
        """NLL after the link, or −prec@1, to be minimised; and prec@1 in percent."""
        scores = np.concatenate([self._scores(batch) for batch in fixed])
        precision = precision_at_k(scores, validation.display_offsets, validation.choices, 1)
        prec1 = 100 * float(np.nanmean(precision)) if not np.isnan(precision).all() else 0.0
        return validation_nll(scores, validation, self.outside) if self.select == "loss" else -prec1, prec1
