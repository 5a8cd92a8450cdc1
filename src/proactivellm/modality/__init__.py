"""Modalities other than text: what turns a payload into source units of a causal LM."""
