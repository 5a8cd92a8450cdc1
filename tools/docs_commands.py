"""The page of the site that lists every command with its flags, as `--help` has them."""

import typer

import proactivellm.cli  # noqa: F401  (its commands register themselves)
from proactivellm.cli.app import app

HEAD = """# Commands

What `proactivellm COMMAND --help` tells. Policies are written as in [the guide](guide/policies.md).
"""


def commands_page() -> str:
    """Markdown: for each command what it does, an example, and a table of its flags."""
    group = typer.main.get_command(app)
    parts = [HEAD]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        text, _, example = (command.help or "").partition("Example:\n")
        parts.append(f"\n## {name}\n\n{text.strip()}\n")
        if example:
            lines = "\n".join(line.strip() for line in example.strip().splitlines())
            parts.append(f"\n```bash\n{lines}\n```\n")
        context = command.context_class(command, info_name=name)
        parts.append("\n| flag | meaning |\n| --- | --- |\n")
        for parameter in command.params:
            if (record := parameter.get_help_record(context)) is not None:
                flag, meaning = (" ".join(cell.split()) for cell in record)
                meaning = meaning.replace("|", "\\|")  # a bar in code ends no cell
                parts.append(f"| `{flag}` | {meaning} |\n")
    return "".join(parts)
