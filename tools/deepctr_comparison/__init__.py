"""Our models against DeepCTR's with the same weights: the parts of `compare_deepctr.py`."""
