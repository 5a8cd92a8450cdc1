"""Seeing decisions: what the model saw at every probe of an instance, and pictures of it."""
