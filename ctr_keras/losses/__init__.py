"""Losses on pairs of vectors."""

from ctr_keras.losses.info_nce import InfoNCE, info_nce
from ctr_keras.losses.info_nce_with_bank import info_nce_with_bank
from ctr_keras.losses.triplet_loss import triplet_loss

__all__ = ["InfoNCE", "info_nce", "info_nce_with_bank", "triplet_loss"]
