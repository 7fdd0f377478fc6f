"""Mutated and whole files for the readers: no crash, no hang, no bare exception, no foreign file, no address."""
