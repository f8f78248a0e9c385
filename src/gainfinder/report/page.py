"""One self-contained page: template, style, script, figures and pictures in a single file that loads no other."""

import base64
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ..config import WEIGHT_DECAY
from ..predictions import IMAGE
from ..results import RunConfig, TransferMetrics
from .charts import Figure
from .drawing import Drawer
from .rows import counted, with_article
from .scan_parts import UnlabelledScanSection, expertise_part, tracking_part
from .sections import TransferSection
from .zoo_section import ScanSection

UNLISTED = ("command", "origins")
"""Of the environment what a page shows elsewhere, and what the model card does."""
_TEMPLATES = files(__package__) / "templates"


def transfer_page(section: TransferSection, *, config: RunConfig, drawer: Drawer) -> str:
    """The page of a transfer.

    Args:
        section: figures, tables and sentences of the page.
        config: the configuration in `config.json`, for the settings and the environment.
        drawer: draws the figures.
    """
    return render_page(
        "transfer.html.j2",
        drawer=drawer,
        noun=section.noun,
        section=section,
        config=config,
        made=_environment_rows(config.environment.model_dump(exclude_unset=True)),
        settings=_settings(config, section.metrics),
    )


def scan_page(section: ScanSection, *, drawer: Drawer) -> str:
    """The page of a scan; `drawer` draws its figures."""
    return render_page(
        "scan.html.j2",
        drawer=drawer,
        noun=section.noun,
        more_scripts=("zoo.js",),
        section=section,
        expertise=expertise_part(section.document),
        tracking=tracking_part(section.document, noun=section.noun),
        data=Markup(section.data),
        made=_environment_rows(section.document.get("environment") or {}),
    )


def unlabelled_scan_page(section: UnlabelledScanSection) -> str:
    """The page of a scan of images without labels."""
    made = _environment_rows(section.document.get("environment") or {})
    return render_page("scan_unlabelled.html.j2", noun=section.noun, section=section, made=made)


def render_page(
    template: str,
    *,
    drawer: Drawer | None = None,
    noun: str = IMAGE,
    more_scripts: Sequence[str] = (),
    **values: Any,
) -> str:
    """A page on the base template, which runs no script but those of this package, named by their digests.

    Args:
        template: name of the template.
        drawer: draws the figures, where there are any.
        noun: what a sample is; texts have styles of their own.
        more_scripts: names of scripts besides that of all pages.
        values: what the template is filled with.
    """
    scripts = [template_text(name) for name in ("page.js", *more_scripts)]
    return render_template(
        template,
        drawer=drawer,
        style=Markup("").join(
            template_text(name) for name in ("style.css", *(() if noun == IMAGE else ("texts.css",)))
        ),
        scripts=scripts,
        script_hashes=[digest_of(script) for script in scripts],
        **values,
    )


def render_template(template: str, *, drawer: Drawer | None = None, **values: Any) -> str:
    """A template of this package, filled; what is not `Markup` is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template_text), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters.update(
        figure=functools.partial(_figure, drawer=drawer),
        counted=counted,
        with_article=with_article,
        symbols=_symbols,
        pp=lambda value: f"{value:+.2f}",
        percent=lambda value: f"{value:.2%}",
    )
    return environment.get_template(template).render(**values)


def template_text(name: str) -> Markup:
    """A file of `templates/`, as it is."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def digest_of(text: str) -> str:
    """A script or style as a content security policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _figure(figure: Figure, *, drawer: Drawer | None) -> Markup:
    """A figure as SVG that scales with the page, Vega having escaped the names in it; or why there is none."""
    assert drawer is not None, "a page with figures is given what draws them"
    svg = drawer.svg(figure)
    if svg is None:
        return Markup("<p>This figure was left out: {}.</p>").format(drawer.failures[figure.name])
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
    rows = {name: value for name, value in environment.items() if name not in UNLISTED and value not in (None, "")}
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
