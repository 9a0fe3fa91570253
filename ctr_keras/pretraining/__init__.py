"""Encoders of item content, their training, and the vectors they make."""

from ctr_keras.pretraining.contrastive_model import ContrastiveModel
from ctr_keras.pretraining.image_encoder import ImageEncoder
from ctr_keras.pretraining.image_encoding import encode_item_images
from ctr_keras.pretraining.memory_bank import MemoryBank
from ctr_keras.pretraining.pairs import pair_texts, read_pairs
from ctr_keras.pretraining.text_encoder import TextEncoder
from ctr_keras.pretraining.text_encoding import encode_items, encode_texts
from ctr_keras.pretraining.text_head import TextHead
from ctr_keras.pretraining.text_weights import encoder_width

__all__ = [
    "ContrastiveModel",
    "ImageEncoder",
    "MemoryBank",
    "TextEncoder",
    "TextHead",
    "encode_item_images",
    "encode_items",
    "encode_texts",
    "encoder_width",
    "pair_texts",
    "read_pairs",
]
