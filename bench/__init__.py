"""Measurements, run by hand: figures per CPU-second of the process."""
