"""What leaves a session: stable text, and the instance log that metrics read."""
