"""Figures of an evaluation as PNG, made from `metrics.json` alone; bands and bars are the 95 % intervals.

png = passes(found, "test")         # bytes, or None where there is nothing to draw
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from openrlhf_cft.evaluation.entropy import KINDS
from openrlhf_cft.evaluation.metrics import ENTROPY
from openrlhf_cft.evaluation.text_report import label, main_figures, sampling, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can distinguish too. The first one, usually the base model, is grey.
COLOURS = ("#666666", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DARK_COLOURS = ("#a2a2ac", "#4aa8e0", "#ff8a4c", "#2fc79a", "#e29cc4", "#e6b84a", "#8accf2", "#ffffff")
TEXT, BACK = "#ececf0", "#17181b"  # of `page.css`, dark
MARKERS = "osD^vP*X"
DPI = 150


@contextmanager
def theme(dark: bool) -> Iterator[None]:
    """Plots that are drawn inside are for a dark page, or for a light page and for paper."""
    import matplotlib
    from matplotlib import rcsetup

    settings: Any = {"axes.prop_cycle": rcsetup.cycler(color=DARK_COLOURS if dark else COLOURS)}
    if dark:
        inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
        settings |= dict.fromkeys(inks, TEXT) | dict.fromkeys(("figure.facecolor", "axes.facecolor"), BACK)
    with matplotlib.rc_context(settings):
        yield


def passes(metrics: Mapping[str, Any], dataset: str) -> bytes | None:
    """Pass@k and majority@k over k, one line per checkpoint."""
    results = metrics["results"][dataset]
    kinds = [kind for kind in ("pass@", "majority@") if any(_at(result, kind) for result in results.values())]
    if not kinds:
        return None
    figure, panels = _panels(len(kinds))
    for panel, kind in zip(panels, kinds, strict=True):
        ks: set[int] = set()
        for index, (name, result) in enumerate(results.items()):
            points = _at(result, kind)
            ks |= {k for k, _ in points}
            _line(panel, index, name, [k for k, _ in points], [point for _, point in points])
        panel.set_xscale("log", base=2)
        panel.set_xticks(sorted(ks), [str(k) for k in sorted(ks)])
        panel.minorticks_off()
        panel.set(xlabel="k, samples", title=f"{kind.capitalize()}k on {dataset}", ylim=(0, None))
    panels[0].set_ylabel("share of questions solved")
    settings = sampling(metrics["settings"], max(result["samples_per_question"] for result in results.values()))
    questions = span([result["questions"] for result in results.values()])
    return _finish(figure, panels, f"{questions} questions, {settings}; bands: 95 % of resampled questions")


def entropies(metrics: Mapping[str, Any], dataset: str) -> bytes | None:
    """Entropy over the position in the response, one line per checkpoint."""
    results = metrics["results"][dataset]
    if not any(result["entropy_by_position"] for result in results.values()):
        return None
    figure, (panel,) = _panels(1)
    for index, (name, result) in enumerate(results.items()):
        parts = result["entropy_by_position"]
        middles = [(part["first"] * part["last"]) ** 0.5 for part in parts]
        mean = result["figures"][ENTROPY]["value"] if parts else float("nan")
        _line(panel, index, f"{name}, mean {mean:.2f}", middles, parts)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set(xlabel="position in the response, tokens", ylabel="entropy, nats a token", ylim=(0, None))
    panel.set_title(f"Entropy by position on {dataset}")
    positions = span([result["entropy_positions"] for result in results.values()])
    return _finish(figure, [panel], f"exact, at {positions} positions of sampled responses; bands: 95 %")


def kinds(metrics: Mapping[str, Any]) -> bytes | None:
    """Entropy and loss on critical and on other tokens of annotated responses, a bar per checkpoint in each group."""
    annotated = metrics.get("annotated")
    if not annotated:
        return None
    figure, panels = _panels(2)
    for panel, (of, title) in zip(panels, (("entropy", "Entropy"), ("nll", "Loss")), strict=True):
        for index, (name, column) in enumerate(annotated["figures"].items()):
            count = len(annotated["figures"])
            for group, kind in enumerate(KINDS):
                point = column.get(f"{kind}_{of}")
                if point is not None:
                    place = group + (index - (count - 1) / 2) * 0.8 / count
                    label = name if group == 0 else None
                    panel.bar(
                        place, point["value"], 0.75 / count, color=_colour(index), label=label, yerr=_error(point)
                    )
        panel.set_xticks(range(len(KINDS)), [f"{kind} tokens" for kind in KINDS])
        panel.set_title(title)
    panels[0].set_ylabel("nats a token")
    return _finish(figure, panels, f"{annotated['responses']} annotated responses; bars: 95 % of resampled responses")


def differences(metrics: Mapping[str, Any], dataset: str) -> bytes | None:
    """The differences between checkpoints, in the figures that are shares: a point and its interval for each pair."""
    pairs = metrics["differences"][dataset]
    chosen = [name for name in main_figures(pair["figures"] for pair in pairs) if name != ENTROPY]
    if not chosen or not any(pair["questions"] for pair in pairs):
        return None
    figure, (panel,) = _panels(1)
    step = 0.7 / len(pairs)
    for index, pair in enumerate(pairs):
        found = [(place, pair["figures"][name]) for place, name in enumerate(chosen) if name in pair["figures"]]
        places = [place + (index - (len(pairs) - 1) / 2) * step for place, _ in found]
        errors = [_error(point) or [[0.0], [0.0]] for _, point in found]
        panel.errorbar(
            [point["value"] for _, point in found],
            places,
            xerr=[[error[side][0] for error in errors] for side in (0, 1)],
            color=_colour(index + 1),
            marker=MARKERS[index % len(MARKERS)],
            linestyle="none",
            label=f"{pair['to']} − {pair['from']}",
        )
    panel.axvline(0, color=_colour(0), linewidth=1)
    panel.set_yticks(range(len(chosen)), [label(name) for name in chosen])
    panel.set_ylim(len(chosen) - 0.5, -0.5)
    panel.set(xlabel="difference", title=f"Paired differences on {dataset}")
    questions = span([pair["questions"] for pair in pairs])
    return _finish(figure, [panel], f"{questions} questions that both were asked; bars: 95 %")


def _at(result: Mapping[str, Any], kind: str) -> list[tuple[int, Mapping[str, Any]]]:
    """The figures of one kind by k. The majority of one sample equals Pass@1."""
    figures = result["figures"]
    by_k = {int(name.removeprefix(kind)): figure for name, figure in figures.items() if name.startswith(kind)}
    if by_k and "pass@1" in figures:
        by_k[1] = figures["pass@1"]
    return sorted(by_k.items())


def _panels(count: int) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(5.2 * count + 1.2 * (count == 1), 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False, sharey=True)[0])


def _colour(index: int) -> str:
    import matplotlib

    colours: list[str] = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    return colours[index % len(colours)]


def _line(panel: Axes, index: int, name: str, x: Sequence[float], points: Sequence[Mapping[str, Any]]) -> None:
    """A line with its band. The band has no width where a point has no interval."""
    marker = MARKERS[index % len(MARKERS)]
    panel.plot(x, [p["value"] for p in points], color=_colour(index), marker=marker, markersize=4, label=name)
    if any(p["low"] is not None for p in points):
        low, high = ([p["value"] if p[end] is None else p[end] for p in points] for end in ("low", "high"))
        panel.fill_between(x, low, high, color=_colour(index), alpha=0.15, linewidth=0)


def _error(point: Mapping[str, Any]) -> list[list[float]] | None:
    """The interval as matplotlib expects it: the lengths below and above the point."""
    if point["low"] is None:
        return None
    return [[max(0.0, point["value"] - point["low"])], [max(0.0, point["high"] - point["value"])]]


def _finish(figure: Figure, panels: Sequence[Axes], note: str) -> bytes:
    for panel in panels:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=9
    )
    figure.supxlabel(note, fontsize=8, alpha=0.8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()
