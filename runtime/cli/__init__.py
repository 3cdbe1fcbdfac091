"""The command line, `acclimate`: one file per group of commands.

Exit codes: 0 done, 1 the daemon refused or could not be reached, 2 bad arguments or configuration, 3 an engine's
or the exporter's packages are missing, 4 a port is taken, 5 a bundle cannot be served, 6 a store is damaged or cannot
be opened.
"""

from __future__ import annotations

import typer

from acclimate.runtime.cli import bundle, chat, demo, export, health, model, serve, session_life, store, token, top

app = typer.Typer(
    name="acclimate",
    help="On-device adaptive inference: quantized models whose sessions keep learning from what they see.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("health")(health.health)
app.command("chat")(chat.chat)
app.command("demo", context_settings={"ignore_unknown_options": True})(demo.demo)
app.command(
    "export",
    context_settings={"ignore_unknown_options": True, "help_option_names": [], "allow_interspersed_args": False},
)(export.export)
app.command("top")(top.top)
app.add_typer(session_life.app, name="session")
app.add_typer(bundle.app, name="bundle")
app.add_typer(store.app, name="store")
app.add_typer(token.app, name="token")
app.add_typer(model.app, name="model")


def main() -> None:
    """Entry point of the console script."""
    app()
