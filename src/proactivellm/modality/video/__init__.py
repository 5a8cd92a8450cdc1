"""Video: frames with their times, and what makes embeddings of a language model of them."""
