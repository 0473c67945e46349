"""One job each: its configuration, its task, its report, and what it writes at the end."""

from dlcore.launch import process

if process.is_command("experiments"):
    process.settle_environment()
