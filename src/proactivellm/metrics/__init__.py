"""Latency, quality and stability, computed from instance logs alone; no model, no torch."""
