"""One self-contained page: template, style, script, figures and pictures in a single file that loads no other."""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ..config import WEIGHT_DECAY
from ..results import RunConfig, TransferMetrics
from .charts import Figure
from .rows import counted
from .scan_parts import UnlabelledScanSection, expertise_part, tracking_part
from .sections import TransferSection
from .zoo_section import ScanSection

_TEMPLATES = files(__package__) / "templates"


def transfer_page(section: TransferSection, *, config: RunConfig) -> str:
    """The page of a transfer.

    Args:
        section: figures, tables and sentences of the page.
        config: the configuration in `config.json`, for the settings and the environment.
    """
    return _render(
        "transfer.html.j2",
        section=section,
        config=config,
        made=_environment_rows(config.environment.model_dump(exclude_unset=True)),
        settings=_settings(config, section.metrics),
    )


def scan_page(section: ScanSection) -> str:
    """The page of a scan."""
    return _render(
        "scan.html.j2",
        section=section,
        expertise=expertise_part(section.document),
        tracking=tracking_part(section.document),
        data=Markup(section.data),
        zoo_script=template_text("zoo.js"),
        made=_environment_rows(section.document.get("environment") or {}),
    )


def unlabelled_scan_page(section: UnlabelledScanSection) -> str:
    """The page of a scan of images without labels."""
    made = _environment_rows(section.document.get("environment") or {})
    return _render("scan_unlabelled.html.j2", section=section, made=made)


def render_template(template: str, **values: Any) -> str:
    """A template of this package, filled; what is not `Markup` is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template_text), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters.update(
        figure=_figure,
        counted=counted,
        symbols=_symbols,
        pp=lambda value: f"{value:+.2f}",
        percent=lambda value: f"{value:.2%}",
    )
    return environment.get_template(template).render(**values)


def template_text(name: str) -> Markup:
    """A file of `templates/`, as it is."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _render(template: str, **values: Any) -> str:
    return render_template(template, style=template_text("style.css"), script=template_text("page.js"), **values)


def _figure(figure: Figure) -> Markup:
    """A figure as SVG that scales with the page; Vega has escaped the names in it."""
    svg = figure.svg
    found = re.search(r'width="([\d.]+)"', svg)
    assert found is not None, "Vega states the width"
    # What a picture holds is hidden from screen readers; of a group they read each mark.
    head = Markup('<svg role="group" aria-label="{}" style="--width:{}px" class="marks" ').format(
        figure.title, found[1]
    )
    return head + Markup(svg[svg.index("xmlns=") :])


def _symbols(text: str) -> Markup:
    """A text with Δ_transf, Δ_acc, ρ_pos and ρ_neg as they are written by hand."""
    return Markup(re.sub(r"([Δρ])_([a-z]+)", r"\1<sub>\2</sub>", str(escape(text))))


def _environment_rows(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The environment that a result was made in."""
    rows = {name: value for name, value in environment.items() if name != "command" and value not in (None, "")}
    return [
        (name, ", ".join(value) or "none" if isinstance(value, list | tuple) else str(value))
        for name, value in rows.items()
    ]


def _settings(config: RunConfig, metrics: TransferMetrics) -> list[tuple[str, str]]:
    """The settings; what trials chose in place of what would have been taken without any."""
    values = {name: value for name, value in config.settings.items() if name != "recipes"}
    if metrics.trials and metrics.optimizer is not None:
        decay = values.get("weight_decay")
        if decay in WEIGHT_DECAY.values():  # by rule
            decay = WEIGHT_DECAY[metrics.optimizer]
        values |= {"optimizer": metrics.optimizer, "lr": metrics.learning_rate, "weight_decay": decay}
    return [(name, str(value)) for name, value in values.items() if value is not None]
