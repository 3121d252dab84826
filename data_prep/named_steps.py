"""Steps by name: a pipeline is a list of steps, each written NAME[:OPTION=VALUE,...].

Commands that clean, select or filter text share this: how a step is declared, read from a command
line or a file, and explained by ``--list-steps``.
"""

import dataclasses
import math
import re
import textwrap
from dataclasses import dataclass
from typing import ClassVar

from data_prep.files import read_lines


def option(default, text):
    """A step's option; one without a default must be given."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class NamedStep:
    """A step with a name and options; the docstring of each kind is its help."""

    name: ClassVar[str] = ""

    def __str__(self):
        options = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) is not None
        ]
        return ":".join([self.name, *filter(None, [",".join(options)])])

    def _refuse(self, name, value, wanted):
        raise ValueError(f"step {self.name}: {name} is {wanted}, not {value}")


def by_name(*kinds):
    """{name: kind} of classes of steps."""
    return {kind.name: kind for kind in kinds}


def parse_step(text, known):
    """The step that ``NAME[:OPTION=VALUE[,OPTION=VALUE]]`` describes.

    Args:
        text: the description.
        known: {name: kind}, from ``by_name``.

    Raises:
        ValueError: no such step or option, or a value of the wrong kind; names those known.
    """
    name, _, settings = text.strip().partition(":")
    if name not in known:
        raise ValueError(f"step {name!r} is unknown; there are {', '.join(known)}")
    fields = {field.name: field for field in dataclasses.fields(known[name])}
    given = {}
    for entry in filter(None, settings.split(",")):
        key, equals, value = entry.partition("=")
        if key not in fields:
            options = f"it has {', '.join(fields)}" if fields else "it has none"
            raise ValueError(f"step {name}: option {key!r} is unknown; {options}")
        if not equals or not value:
            raise ValueError(f"step {name}: {key} needs a value, as in {key}=…")
        if key in given:
            raise ValueError(f"step {name}: {key} is given twice")
        kind = fields[key].type
        try:
            given[key] = kind(value)
        except ValueError:
            wanted = {int: "a whole number", float: "a number"}[kind]
            raise ValueError(f"step {name}: {key} is {wanted}, not {value!r}") from None
        if kind is float and math.isnan(given[key]):
            raise ValueError(f"step {name}: {key} is a number, not {value!r}")
    missing = [
        key for key, field in fields.items()
        if key not in given and field.default is dataclasses.MISSING
    ]  # fmt: skip
    if missing:
        raise ValueError(f"step {name} needs {missing[0]}=…: {fields[missing[0]].metadata['help']}")
    return known[name](**given)


def read_steps(path):
    """Descriptions of steps in a file, one a line; empty lines and what follows # are left out."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in read_lines(path))
    return [line for line in lines if line]


def steps_help(groups, width=98):
    """Steps and their options as text for people.

    Args:
        groups: {title: classes of steps}.
        width: of the text, in characters.
    """
    lines = []
    for title, steps in groups.items():
        lines.append(f"{title}:")
        for step in steps:
            lines += textwrap.wrap(
                f"{step.name:<17} {' '.join(step.__doc__.split())}", width,
                initial_indent="  ", subsequent_indent=" " * 20,
            )  # fmt: skip
            for field in dataclasses.fields(step):
                unset = field.default in (None, dataclasses.MISSING)
                default = "" if unset else f" (default: {field.default})"
                lines += textwrap.wrap(
                    f"{field.name}=  {field.metadata['help']}{default}", width,
                    initial_indent=" " * 22, subsequent_indent=" " * 26,
                )  # fmt: skip
    return "\n".join(lines)
