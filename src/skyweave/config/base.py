"""What the sections of the settings are made of."""

from collections.abc import Mapping
from typing import Annotated, Any, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a value that is given twice."""
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise ValueError(f"expected each entry once, found {twice!r} twice")
    return values


def check_path(path: str | None, source: str, own: str) -> None:
    """A path belongs to the source that reads one."""
    if source == own and path is None:
        raise ValueError(f"path: expected a file with `source: {own}`, found none")
    if source != own and path is not None:
        raise ValueError(f"path: expected `source: {own}` with it, found `source: {source}`")


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"expected number, found {value!r}")
    return value


Number = Annotated[float, BeforeValidator(_no_bool)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Fields = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(distinct)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class Settings(BaseModel):
    """Base of all sections: unknown keys are errors, and a section never changes once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, values: Any) -> Any:
        """Refuse what pydantic would turn into a number, but for ``1e-3``, text in YAML."""
        for name, value in values.items() if isinstance(values, Mapping) else ():
            kind = cls.model_fields[name].annotation if name in cls.model_fields else None
            kinds = {getattr(one, "__origin__", one) for one in get_args(kind) or (kind,)}
            kinds -= {type(None)}
            if (kinds <= {int, float} and isinstance(value, bool)) or (
                kinds == {int} and isinstance(value, str)
            ):
                wanted = "integer" if kinds == {int} else "number"
                raise ValueError(f"{name}: expected {wanted}, found {value!r}")
        return values


class Split(Settings):
    """Shares of the dataset for training, validation and test."""

    train: Fraction = Field(0.8, description="Share to train on.")
    validation: Fraction = Field(0.1, description="Share to steer the training by.")
    test: Fraction = Field(0.1, description="Share to judge on, never seen before.")

    @model_validator(mode="after")
    def _adds_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"expected shares that add to 1, found {total:g}")
        return self
