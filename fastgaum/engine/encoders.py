"""Which history encoder has which passes by hand."""

from __future__ import annotations

from fastgaum.engine.bilstm import FusedPrefixBiLstm
from fastgaum.engine.histories import FusedHistory, FusedPositionWeight, FusedRecurrent
from fastgaum.engine.scratch import Scratch
from fastgaum.nets.histories import HistoryEncoder, PositionWeight, PrefixBiLstm, Recurrent


def fused_history(encoder: HistoryEncoder, name: str, scratch: Scratch) -> FusedHistory | None:
    """The encoder by hand, or None for one that only autograd knows."""
    if type(encoder) is Recurrent:
        return FusedRecurrent(encoder, name, scratch)
    if type(encoder) is PositionWeight:
        return FusedPositionWeight(encoder, name, scratch)
    if type(encoder) is PrefixBiLstm:
        return FusedPrefixBiLstm(encoder, name, scratch)
    return None
