"""Readers of checkpoint files. Own code, memory-mapped; what a file claims is checked before it is used."""
