"""Source units: a payload (text, speech) cut into the pieces that a session reads one by one."""
