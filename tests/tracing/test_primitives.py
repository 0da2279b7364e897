"""What the package relies on in primitives of JAX that no document describes; it fails where a new JAX differs."""

import jax
import jax.numpy as jnp

from nncompress_jax.axes.primitives import NAME, RAGGED_DOT
from nncompress_jax.tracing import primitives


def equation_of(function, *arguments):
    *_, equation = jax.make_jaxpr(function)(*arguments).eqns
    return equation


def test_a_scan_says_which_operands_it_carries():
    def walk(a, b, carry, more, rows):
        return jax.lax.scan(lambda c, x: ((c[0] @ a + x, c[1] * b.sum()), c[0]), (carry, more), rows)

    square, vector = jnp.ones((2, 2)), jnp.ones(2)
    equation = equation_of(walk, square, jnp.ones(5), vector, jnp.ones(()), jnp.ones((3, 2)))
    assert equation.primitive.name == "scan"
    first, carried = primitives.scan_operands(equation.params)
    shapes = [atom.aval.shape for atom in equation.invars]
    assert sorted(shapes[:first]) == [(2, 2), (5,)]
    assert shapes[first : first + carried] == [(2,), ()]
    assert shapes[first + carried :] == [(3, 2)]
    assert {"length", "reverse", "unroll", "jaxpr"} <= equation.params.keys()


def test_a_while_says_which_operands_it_carries():
    def repeat(limit, factor, x):
        return jax.lax.while_loop(lambda c: c[0] < limit, lambda c: (c[0] + 1, c[1] @ factor), (0, x))

    equation = equation_of(repeat, 3, jnp.ones((2, 2)), jnp.ones((4, 2)))
    assert equation.primitive.name == "while"
    start = equation.params["cond_nconsts"]
    first, carried = primitives.while_operands(equation.params)
    shapes = [atom.aval.shape for atom in equation.invars]
    assert (start, shapes[start : start + first]) == (1, [(2, 2)])
    assert shapes[start + first :] == [(), (4, 2)]
    assert carried == 2


def test_a_cond_keeps_its_branches_in_order():
    taken = jnp.array(True)
    equation = equation_of(lambda p, x: jax.lax.cond(p, lambda x: x + 1, lambda x: x @ x, x), taken, jnp.ones((2, 2)))
    names = [[inner.primitive.name for inner in branch.jaxpr.eqns] for branch in primitives.branches_of(equation)]
    assert names == [["dot_general"], ["add"]]


def test_the_branch_of_this_platform_runs():
    def choose(x):
        return jax.lax.platform_dependent(x, cpu=jnp.sin, tpu=jnp.cos, default=jnp.tanh)

    program = jax.make_jaxpr(choose)(1.0)
    (equation,) = (equation for equation in program.eqns if equation.primitive.name == "cond")
    (branch,) = primitives.branches_of(equation)
    assert [inner.primitive.name for inner in branch.jaxpr.eqns] == ["sin"]


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, cotangent: (2 * cotangent,))


@jax.custom_jvp
def tripled(x):
    return 3 * x


tripled.defjvp(lambda primals, tangents: (3 * primals[0], 3 * tangents[0]))


def test_programs_that_run_once():
    kinds = {
        primitives.CALLS: [jax.jit(lambda x: 2 * x)],
        primitives.REMATS: [jax.checkpoint(lambda x: 2 * x)],
        primitives.CUSTOM_DERIVATIVES: [doubled, tripled],
    }
    for names, functions in kinds.items():
        for function in functions:
            equation = equation_of(function, 1.0)
            assert equation.primitive.name in names
            inner = primitives.called_program(equation)
            assert [step.primitive.name for step in inner.jaxpr.eqns] == ["mul"]
            assert len(inner.jaxpr.invars) == len(equation.invars)


def test_what_jax_exports_as_functions_alone():
    assert (NAME.name, RAGGED_DOT.name) == ("name", "ragged_dot_general")
    rows, matrices, counts = jnp.ones((5, 4)), jnp.ones((2, 4, 3)), jnp.array([2, 3])
    equation = equation_of(jax.lax.ragged_dot, rows, matrices, counts)
    numbers = equation.params["ragged_dot_dimension_numbers"]
    assert equation.primitive is RAGGED_DOT
    assert numbers == jax.lax.RaggedDotDimensionNumbers((((1,), (1,)), ((), ())), (0,), (0,))
