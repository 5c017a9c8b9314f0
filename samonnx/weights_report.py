"""What happened to every weight: matched, missing, unexpected, mis-shaped, by component."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.table import Table

from samonnx.errors import SamonnxError

__all__ = ["ComponentWeights", "Misfit", "WeightsError", "WeightsReport"]


@dataclass(frozen=True)
class Misfit:
    """A tensor that is there but cannot be taken: its name and what is wrong with it."""

    name: str
    problem: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


@dataclass(frozen=True)
class ComponentWeights:
    """The weights of one component of a recipe. All names are full state-dict keys, sorted."""

    name: str
    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Wanted by the module, not in the checkpoint."""
    unexpected: tuple[str, ...] = ()
    """In the checkpoint under a prefix of this component, unknown to the module."""
    misshaped: tuple[Misfit, ...] = ()
    """Shape or kind of number differs."""
    non_finite: tuple[Misfit, ...] = ()
    """Holds NaN or infinity."""
    unused: tuple[str, ...] = ()
    """In released files, and known never to be read by this program."""
    parameters: int = 0
    """Numbers (tensor elements) in `matched`."""

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each thing that stops the compile."""
        return (
            *(f"missing     {name}" for name in self.missing),
            *(f"unexpected  {name}" for name in self.unexpected),
            *(f"mis-shaped  {misfit}" for misfit in self.misshaped),
            *(f"non-finite  {misfit}" for misfit in self.non_finite),
        )


@dataclass(frozen=True)
class WeightsReport:
    """Where the weights of a module came from, and that all of them did."""

    source: str
    """`seeded(seed=3)` or `checkpoint`: no paths, so that it can stand in a manifest."""
    components: tuple[ComponentWeights, ...]
    digest: str = ""
    """sha256 (hex) over name, dtype, shape and bytes of every weight in the module, sorted by name; counters
    (`num_batches_tracked`) are left out, because no number depends on them. Empty while there are problems."""
    file: str | None = None
    """File name of the checkpoint, without its folder."""
    not_used: int = 0
    """Entries of the checkpoint outside all components (other parts of a larger model)."""
    converted: tuple[str, ...] = ()
    """Conversions of dtype that took place, for example `float16 → float32: 120 tensors`."""
    notes: tuple[str, ...] = field(default=())

    @property
    def parameters(self) -> int:
        """Numbers in all components."""
        return sum(component.parameters for component in self.components)

    @property
    def problems(self) -> int:
        """How many things are wrong, in all components."""
        return sum(len(component.problems) for component in self.components)

    def render(self) -> Table:
        """A table of counts, one row a component; notes and conversions below it."""
        where = f" ({self.file})" if self.file else ""
        below = [*self.notes, *(f"converted: {line}" for line in self.converted)]
        if self.not_used:
            below.append(f"{self.not_used} other entries of the checkpoint are not used by this recipe")
        if self.digest:
            below.append(f"sha256 {self.digest}")
        table = Table(title=f"Weights: {self.source}{where}", caption="\n".join(below) or None, caption_justify="left")
        table.add_column("component")
        headings = ("matched", "missing", "unexpected", "mis-shaped", "non-finite", "unused", "parameters")
        for heading in headings:
            table.add_column(heading, justify="right")
        for c in self.components:
            lists = (c.matched, c.missing, c.unexpected, c.misshaped, c.non_finite, c.unused)
            table.add_row(c.name, *(str(len(names)) for names in lists), f"{c.parameters:,}")
        return table


class WeightsError(SamonnxError):
    """The weights cannot be loaded; nothing was. `report` has the details if a checkpoint was compared."""

    def __init__(self, message: str, report: WeightsReport | None = None) -> None:
        super().__init__(message)
        self.report = report

    @classmethod
    def from_report(cls, report: WeightsReport) -> WeightsError:
        """All problems of all components, listed."""
        lines = [
            f"{report.file or 'the checkpoint'} does not fit the model: {report.problems} problems; nothing was loaded"
        ]
        for component in report.components:
            if component.problems:
                lines.append(f"  {component.name}")
                lines.extend(f"    {problem}" for problem in component.problems)
        lines.append("  Use the checkpoint of the model that the recipe names, or change the recipe's model")
        return cls("\n".join(lines), report)
