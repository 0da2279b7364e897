"""What every compressed weight is: an array that knows how to multiply, stored in compressed parts."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeGuard

import jax
import jax.numpy as jnp
import quax
from jax import lax
from jax.typing import ArrayLike

from nncompress_jax.axes.movements import Movement
from nncompress_jax.axes.places import repeated
from nncompress_jax.ops.fast import FAST, has_fast_form
from nncompress_jax.tree import stored_bytes
from nncompress_jax.weights import serialization
from nncompress_jax.weights.delayed import after_inputs
from nncompress_jax.weights.dicts import TYPES
from nncompress_jax.weights.materialised import materialised_p
from nncompress_jax.weights.outside import Refusing, by_rules

FLOATS = ("float32", "float16", "bfloat16", "float64")


class CompressedWeight(Refusing, quax.ArrayValue):
    """A pytree that stands for a dense array: same logical shape and dtype, only compressed parts stored.

    A type has fields for its parts, `aval` (the logical shape and dtype, read off the parts' shapes so that `scan`
    and `vmap` can slice them), `materialise` (the dense array) and, under `quax.register(primitive)`, rules for what
    it can do in compressed form. For every rule, materialising the result equals running the primitive on
    the materialised operands: exactly, or up to the error that the type states. `nnc.inject` makes functions
    follow the rules. A part may itself be a compressed weight.

    Attributes:
      TRAINS: names of the fields that training changes.
      DECAYS: those of them that weight decay reaches.
      FILE_NAME: of the type in files, where that is not its name here.
      FILE_FIELDS: names of fields in files, where those are others.
      HELD: names of the fields that hold float arrays, or other compressed weights in their place.
      HOLDS: types of those.
      WHOLE: names of the fields of the logical shape, whose entries move as the weight's do; none: operations that move
        entries make the array dense.
      SHARED: names of the fields that broadcast to it, or of which groups of neighbours along an axis share an entry.
      STANDS_ALONE: whether it may be a leaf of variables; else it is a part of other types.
      DTYPES: logical dtypes that it may have; a static field, `dtype_name`, says which, and a cast changes it alone.
    """

    TRAINS: ClassVar[tuple[str, ...]] = ()
    DECAYS: ClassVar[tuple[str, ...]] = ()
    FILE_NAME: ClassVar[str] = ""
    FILE_FIELDS: ClassVar[Mapping[str, str]] = {}
    HELD: ClassVar[tuple[str, ...]] = ()
    HOLDS: ClassVar[tuple[type, ...]] = ()
    WHOLE: ClassVar[tuple[str, ...]] = ()
    SHARED: ClassVar[tuple[str, ...]] = ()
    STANDS_ALONE: ClassVar[bool] = True
    DTYPES: ClassVar[tuple[str, ...]] = FLOATS

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not cls.__name__.startswith("_"):
            TYPES[cls.FILE_NAME or cls.__name__] = cls
            serialization.register(cls)

    @staticmethod
    def default(primitive: Any, values: Sequence[Any], params: dict[str, Any], reason: str = "") -> Any:
        """What happens where there is no rule: operands take a simpler form, at last the dense one."""
        lowered = [value.lowered() if is_compressed(value) else value for value in after_inputs(values)]
        if any(type(new) is not type(old) for new, old in zip(lowered, values, strict=True)):
            return bind(primitive, lowered, params)
        return on_dense(primitive, values, params, reason=reason or f"no rule for {primitive}")

    def materialise(self) -> Any:
        """The dense array; a type without a simpler form has its own."""
        return self.lowered().materialise()

    def lowered(self) -> Any:
        """The same array as another type that has more rules; itself, where there is none."""
        return self

    def preconditioned(self, gradient: Any) -> Any:
        """The gradient as training takes it, of a size that suits the learning rate of dense weights.

        Args:
          gradient: of this weight, with None in the places of parts that do not train.
        """

        def of(part: Any, gradient: Any) -> Any:
            if isinstance(part, tuple):
                return tuple(map(of, part, gradient))
            return part.preconditioned(gradient) if is_compressed(part) else gradient

        fields = [field.name for field in dataclasses.fields(self) if not field.metadata.get("static")]
        parts = {name: of(getattr(self, name), getattr(gradient, name)) for name in fields}
        return dataclasses.replace(gradient, **parts)

    def projected(self) -> Any:
        """After an update in training: back within the bounds of its values, where it has any."""

        def of(part: Any) -> Any:
            return part.projected() if is_compressed(part) else part

        return jax.tree.map(of, self, is_leaf=lambda part: part is not self and is_compressed(part))

    def cast(self, dtype: Any) -> Any:
        """The same parts, standing for an array of another float type."""
        logical: dict[str, Any] = {"dtype_name": jnp.dtype(dtype).name}
        return dataclasses.replace(self, **logical)

    def stacked(self, length: int) -> Any:
        """The same array in parts with a first axis of `length` each, so that `scan` can walk along it."""
        lowered = self.lowered()
        return self.materialise() if lowered is self else lowered.stacked(length)

    def moved(self, movement: Movement) -> Any:
        """Of which some entries stand in other places; or in words, why its parts cannot go along."""
        if not self.WHOLE:
            lowered = self.lowered()
            return "of parts that do not move with its entries" if lowered is self else lowered.moved(movement)
        parts = {name: getattr(self, name) for name in (*self.WHOLE, *self.SHARED)}
        new = {name: moved(part, movement) for name, part in parts.items() if name in self.WHOLE and part is not None}
        for name in self.SHARED:
            if parts[name] is not None:
                new[name] = movement.shared(repeated(parts[name], self.shape, movement.kept))
        return dataclasses.replace(self, **new)

    def filled(self, where: Any, value: Any) -> Any:
        """With one value in some places, which broadcast to it."""
        return jnp.where(where, value, self.materialise())

    def held(self) -> tuple[Any, ...]:
        """What stands in the fields of `HELD`, one after the other."""
        return tuple(jax.tree.leaves([getattr(self, name) for name in self.HELD], is_leaf=is_compressed))

    def convert(self) -> Any:
        """After training through compression: what has become of it, the same numbers to the last bit."""

        def of(part: Any) -> Any:
            return part.convert() if is_compressed(part) else part

        return jax.tree.map(of, self, is_leaf=lambda part: part is not self and is_compressed(part))

    def update_ranges(self, largest: Any) -> Any:
        """With the range of its inputs, where it tracks one, moved by the largest magnitude of one batch's."""
        return self

    def check(self) -> str | None:
        """What is wrong with it, in words, before a program may run on it; None: it is sound."""
        dtype = getattr(self, "dtype_name", self.DTYPES[0])
        if dtype not in self.DTYPES:
            return f"dtype_name {str(dtype)[:20]!r}, expected one of {', '.join(self.DTYPES)}"
        return self.check_parts()

    def check_parts(self) -> str | None:
        """As `check`, of the parts of this type: first types and shapes, then entries, of arrays of numpy."""
        return None

    def check_structure(self) -> str | None:
        """As `check`, before each use: of types and shapes alone, and of any floats."""
        found = []

        def checked(weight: Any) -> None:
            with contextlib.suppress(jax.errors.JAXTypeError):  # here begins what entries are asked for
                found.append(weight.check())

        def float32(part: Any) -> Any:
            return jax.ShapeDtypeStruct(
                part.shape, jnp.float32 if jnp.issubdtype(part.dtype, jnp.floating) else part.dtype
            )

        jax.eval_shape(checked, jax.tree.map(float32, self))
        return found[0] if found else None

    def check_held(self, part: Any) -> str | None:
        """As `check`, of a float array, or what may stand for one inside of this type."""
        kind, own = type(part).__name__, type(self).__name__
        if isinstance(part, self.HOLDS) and is_compressed(part) and part.STANDS_ALONE and type(part) is not type(self):
            return part.check()
        if is_compressed(part) or not hasattr(part, "dtype"):
            return f"a {kind} inside of {own}"
        return None if part.dtype.name in FLOATS else f"{part.dtype} inside of {own}, expected floats"

    def static_to_dict(self) -> dict[str, Any]:
        """Static fields as what JSON can hold."""
        fields = [field.name for field in dataclasses.fields(self) if field.metadata.get("static")]
        static = {name: getattr(self, name) for name in fields}
        return {name: [*value] if isinstance(value, tuple) else value for name, value in static.items()}

    @classmethod
    def static_from_dict(cls, static: dict[str, Any]) -> dict[str, Any]:
        """What `static_to_dict` gave, as the fields' values; Raises InputError for what they cannot be."""
        return {name: tuple(value) if isinstance(value, list) else value for name, value in static.items()}

    @property
    def tracked_parts(self) -> tuple[str, ...]:
        """Names of the fields that `update_ranges` moves."""
        return ()

    @property
    def nesting(self) -> str:
        """Its type, and those inside, as `LowRank of Quantized`."""
        inner = sorted({part.nesting for part in self.held() if is_compressed(part)})
        return " of ".join([type(self).__name__, *([", ".join(inner)] if inner else [])])

    @property
    def density(self) -> float | None:
        """Share of the entries that exist; None unless some do not."""
        return None

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The logical shape, but for channels that are not there."""
        return tuple(self.shape)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Of a chain of factors: the channels between them; () for others."""
        return ()

    @property
    def code_bits(self) -> tuple[int, int] | None:
        """(bits of a code, codes along the last axis) of parts that hold several codes to a byte; None for others."""
        return None

    @property
    def parameters(self) -> int:
        """Weights that it has: entries of the dense array, but for channels that are not there."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored parts."""
        return stored_bytes(self)


def is_compressed(x: Any) -> TypeGuard[CompressedWeight]:
    """For `is_leaf=`: compressed weights are leaves, whatever they hold."""
    return isinstance(x, CompressedWeight)


def dense(x: Any) -> Any:
    """Materialised if compressed, else as it is."""
    return type(x).materialise(x) if is_compressed(x) else x


def moved(x: Any, movement: Movement) -> Any:
    """An array, or a weight, of which entries stand in other places: dense, where a weight's parts cannot go along."""
    result = x.moved(movement) if is_compressed(x) else movement.whole(x)
    return movement.whole(dense(x)) if isinstance(result, str) else result


def bind(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Runs a primitive, by the rules of the compressed weights among its operands."""
    if any(map(is_compressed, values)):
        with by_rules():
            return quax.quaxify(lambda *values: primitive.bind(*values, **params))(*values)
    return primitive.bind(*values, **params)


def run(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """As `bind`; operands that are all dense run in the fast form, if there is one."""
    if not any(map(is_compressed, values)) and has_fast_form(primitive, values, params):
        return FAST[primitive](*values, **params)
    return bind(primitive, values, params)


def on_dense(primitive: Any, values: Sequence[Any], params: dict[str, Any], *, reason: str) -> Any:
    """Runs a primitive on materialised operands, and says in the program why."""

    def materialised(value: Any) -> Any:
        return materialised_p.bind(dense(value), reason=reason) if is_compressed(value) else value

    return run(primitive, [materialised(value) for value in after_inputs(values)], params)


Rule = Callable[[Any, Sequence[Any], dict[str, Any]], Any]
"""(primitive, operands, its parameters) -> the result, or in words why it takes operands in a simpler form."""


def registered(primitive: Any, kind: type, rule: Rule) -> None:
    """Makes a rule that of a primitive, for any number of operands: arrays, and one weight of this kind at least."""

    def ruled(*values: ArrayLike | kind, **params: Any) -> Any:  # type: ignore[valid-type]
        result = rule(primitive, values, params)
        if not isinstance(result, str):
            return result
        return CompressedWeight.default(primitive, values, params, f"{primitive} {result}")

    quax.register(primitive)(ruled)


@quax.register(lax.convert_element_type_p)
def _(weight: CompressedWeight, *, new_dtype: Any, **params: Any) -> Any:
    if jnp.issubdtype(new_dtype, jnp.floating) and jnp.issubdtype(weight.dtype, jnp.floating):
        return weight.cast(new_dtype)
    params["new_dtype"] = new_dtype
    return on_dense(lax.convert_element_type_p, (weight,), params, reason=f"converted to {new_dtype}")
