"""Parts of a recipe that have one of two forms, told apart by their keys: the SAM family's and XMem's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from samonnx.recipe_spec import Spec

__all__ = ["OrByKeys"]


@dataclass(frozen=True)
class OrByKeys:
    """Annotates a `Spec`: the value may be an `other` instead, and is where more of its keys are that one's own.

    Only one of both is then validated, so that mistakes are explained in its terms. To a type checker the value is the
    annotated one, since nearly all that reads it is of that family; a reader of the other asks `isinstance`.
    """

    other: type[Spec]

    def __get_pydantic_core_schema__(self, source: type[Spec], handler: GetCoreSchemaHandler) -> CoreSchema:
        kinds = {kind.__name__: kind for kind in (source, self.other)}
        choices = {name: handler.generate_schema(kind) for name, kind in kinds.items()}
        return core_schema.tagged_union_schema(choices, discriminator=_name_of(source, self.other))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "description": "One of two forms, told apart by their keys."}


def _name_of(first: type[Spec], second: type[Spec]) -> Callable[[Any], str]:
    own = set(first.model_fields) - set(second.model_fields)
    others = set(second.model_fields) - set(first.model_fields)

    def name(value: Any) -> str:
        if isinstance(value, Mapping):
            return (second if len(others.intersection(value)) > len(own.intersection(value)) else first).__name__
        return (second if isinstance(value, second) else first).__name__

    return name
