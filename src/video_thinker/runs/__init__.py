"""Every byte of a run folder: records, atomic files, predictions."""
