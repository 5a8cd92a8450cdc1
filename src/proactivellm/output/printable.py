"""Text of others on a terminal: it must show itself, and do nothing else."""


def printable(text: str) -> str:
    """Text without what would move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)
