"""Streams inside other people's tools; not imported by the command line."""
