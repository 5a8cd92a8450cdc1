"""Listening: log-mel frames -> causal encoder -> projector -> source units of a causal LM."""
