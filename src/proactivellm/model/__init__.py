"""A Hugging Face causal LM behind read / probe / write: layouts, masks, cache, attention probe."""
