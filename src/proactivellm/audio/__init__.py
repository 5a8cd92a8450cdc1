"""Audio: where samples come from, their sample rate, what is speech in them, and their features."""
