"""Streaming training: packed views, L_batch + L_MSLM + lambda KL, on transformers.Trainer."""
