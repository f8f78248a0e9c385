"""`gainfinder methods`: the table of transfer methods."""

from .command import command
from .options import Json


@command
def methods(json: Json = False) -> None:
    """Show the transfer methods: who teaches a sample, by which loss, with which defaults, and where it is defined."""
    from dataclasses import asdict

    from ..config import METHODS
    from .tables import methods_table, print_json

    rows = [{**asdict(method), "needs_labels": method.needs_labels} for method in METHODS]
    if json:
        print_json({"methods": rows})
    else:
        methods_table(rows)
