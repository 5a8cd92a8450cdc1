"""Speech: where samples come from, what is speech in them, their features, encoder, units."""
