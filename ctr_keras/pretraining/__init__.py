"""Encoders of item content, and the vectors they make."""

from ctr_keras.pretraining.text_encoder import TextEncoder
from ctr_keras.pretraining.text_encoding import encode_texts
from ctr_keras.pretraining.text_weights import encoder_width

__all__ = ["TextEncoder", "encode_texts", "encoder_width"]
