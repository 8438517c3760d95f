"""Sampling completions: in this process, or from a server."""
