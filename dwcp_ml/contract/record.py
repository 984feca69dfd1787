"""The base of the records that pipeline steps exchange as JSON files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from dwcp_ml.contract.errors import DwcpError, ErrorCode

_set = object.__setattr__  # a frozen model refuses its own


class Record(BaseModel):
    """Base of the records: unknown fields are rejected, and instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def replace(self, **changes: Any) -> Self:
        """Return the record with some fields replaced; mypy checks their names and types.

        Values are not validated again: ``tools/mypy_record.py`` gives this method the keyword
        arguments of the constructor.

        Raises
        ------
        TypeError
            If the record has no such field.
        """
        cls = type(self)
        if not changes.keys() <= cls.__pydantic_fields__.keys():
            unknown = ", ".join(sorted(changes.keys() - cls.__pydantic_fields__.keys()))
            raise TypeError(f"{cls.__name__} has no field {unknown}.")
        # What model_copy(update=changes) does for a record, in less than half the time: a decision
        # replaces fields a dozen times, and a simulated rollout takes thousands of decisions.
        new = cls.__new__(cls)
        _set(new, "__dict__", {**self.__dict__, **changes})
        _set(new, "__pydantic_fields_set__", self.__pydantic_fields_set__ | changes.keys())
        _set(new, "__pydantic_extra__", None)
        _set(new, "__pydantic_private__", None)
        return new

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record that an earlier step wrote.

        Raises
        ------
        DwcpError
            If the file is missing or does not hold such a record.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DwcpError(
                f"Can't read {path}: {error.strerror}.", code=ErrorCode.CANT_READ, subject=path
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the file"
            raise DwcpError(
                f"{path} is not a valid {cls.__name__}: {place}: {first['msg']}; if another "
                "release wrote it, run that step again.",
                code=ErrorCode.MALFORMED,
                subject=path,
            ) from error

    def to_json(self) -> str:
        """Return the record as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"
