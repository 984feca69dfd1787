"""Reads a Containerfile into its stages."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One stage: what it stands on, and its instructions in their order."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    @property
    def arguments(self) -> dict[str, str]:
        """Its build arguments that have a default."""
        pairs = (text.partition("=") for word, text in self.steps if word == "ARG")
        return {name: value for name, equals, value in pairs if equals and value}

    def last(self, word: str) -> str:
        return [text for each, text in self.steps if each == word][-1]

    def labels(self) -> dict[str, str]:
        pairs = [pair for word, text in self.steps if word == "LABEL" for pair in shlex.split(text)]
        return dict(pair.split("=", 1) for pair in pairs)

    def environment(self) -> dict[str, str]:
        """Return the variables that this stage sets itself."""
        pairs = [pair for word, text in self.steps if word == "ENV" for pair in shlex.split(text)]
        return dict(pair.split("=", 1) for pair in pairs)

    def sources(self) -> set[str]:
        """What it takes from the build context: copied, or mounted while something runs."""
        paths: set[str] = set()
        for word, text in self.steps:
            if word == "COPY" and "--from=" not in text:
                paths |= {each for each in text.split()[:-1] if not each.startswith("--")}
            paths |= set(re.findall(r"--mount=type=bind,source=([^,\s]+)", text))
        return paths


def read_stages(path: Path) -> dict[str, Stage]:
    """Return name -> stage; what stands before the first one is called ``""``."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages = {"": Stage(base="")}
    current = stages[""]
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = stages[name] = Stage(base=base)
        elif word:
            current.steps.append((word, " ".join(rest.split())))
    return stages
