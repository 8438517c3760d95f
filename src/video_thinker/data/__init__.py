"""Annotations, videos, conversations and batches: from a row of a file to what the model is fed."""
