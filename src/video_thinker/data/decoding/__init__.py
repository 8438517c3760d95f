"""Decoding in a process of its own, so that a hang or a crash in C code ends one file and not the command."""
