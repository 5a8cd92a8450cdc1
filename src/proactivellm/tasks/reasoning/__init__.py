"""Reasoning over a stream: problems with a thought for each sentence, made and judged."""
