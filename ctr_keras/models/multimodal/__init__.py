"""Content beside ids: texts, and later pictures."""

from ctr_keras.models.multimodal.tuned_texts import TunedTexts

__all__ = ["TunedTexts"]
