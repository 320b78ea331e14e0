"""Cells as tensors: decoding, augmentation, sampling, batches."""
