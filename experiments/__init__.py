"""One job each: its configuration, its task, its report, and what it writes at the end."""

from dlcore.launch import process

if process.is_command("experiments"):
    process.restart_with_huge_pages()
