"""Source units: a payload cut into the pieces that a session reads one by one."""
