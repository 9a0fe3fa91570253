"""Losses on pairs of vectors."""

from ctr_keras.losses.info_nce import InfoNCE, info_nce

__all__ = ["InfoNCE", "info_nce"]
