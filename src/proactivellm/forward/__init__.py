"""One step of many streams: where their tokens stand, what they see, and where keys are kept."""
