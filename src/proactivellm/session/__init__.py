"""Sessions: the READ/WRITE loop, its state, its batching and its sampling."""
