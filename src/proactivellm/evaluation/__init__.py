"""Whole test sets: policies side by side (evaluate), thresholds from dev data (calibrate)."""
