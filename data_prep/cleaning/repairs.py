"""Repairs: steps that change text and drop nothing."""

from dataclasses import dataclass
from typing import ClassVar

from data_prep.cleaning.kinds import Repair
from data_prep.files import one_line


@dataclass(frozen=True)
class Whitespace(Repair):
    """makes every run of white space one space, and removes it at both ends"""

    name: ClassVar[str] = "whitespace"

    def repair(self, texts, lang):
        return [one_line(text) for text in texts]
