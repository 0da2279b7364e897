"""Runs that learn from a teacher."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nncompress_jax as nnc
from nncompress_jax import losses
from nncompress_jax.commands.initial import initial_variables
from nncompress_jax.commands.teacher import objective_of
from nncompress_jax.training import checkpoint, loop, objective
from nncompress_jax.training.config import Config
from nncompress_jax.training.mesh import data_mesh
from nncompress_jax.training.state import create
from nncompress_jax.training.step import compile_train_step

CONFIG = Config(model="narrow", dataset="tiny", epochs=1, batch_size=16, learning_rate=0.01)
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)


def network(name="narrow", classes=4, seed=0):
    made = nnc.models.create(name, num_classes=classes, initialization="he")
    variables = jax.jit(made.init)(jax.random.key(seed), jnp.zeros((1, 32, 32, 3)))
    return made, variables


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("trained") / "run")
    loop.train(dataclasses.replace(CONFIG, data_dir=tiny_data, workdir=folder))
    return folder


def scaled(key, images):
    return images.astype(jnp.float32) / 255 - 0.5


@pytest.mark.parametrize("compressed", [False, True])
def test_a_step_is_the_loss_of_the_source(compressed):
    """The loss that is reported, and the parameters after a step, against optax on the formula."""
    student, variables = network()
    teacher, theirs = network(seed=1)
    theirs = nnc.compress(theirs, nnc.quantize(where="*Conv_1*")) if compressed else theirs
    goal = objective.distilled(
        teacher.apply, theirs, temperature=3.0, alpha=0.7, hints=[("params/Conv_2/kernel", "params/Conv_2/kernel")]
    )
    tx, mesh = nnc.optimizer(optax.sgd(0.1)), data_mesh()
    state = create(variables, tx, jax.random.key(0), mesh)
    labels = np.arange(16, dtype=np.int32) % 4
    program = compile_train_step(student.apply, tx, scaled, mesh, goal)
    after, metrics = program(state, IMAGES, labels, goal.given)

    x = scaled(None, jnp.asarray(IMAGES))
    answers, seen = nnc.observe(teacher.apply)(theirs, x)

    def loss_of(params):
        apply = lambda *args: student.apply(*args, train=True, mutable=["batch_stats"])  # noqa: E731
        (logits, _), own = nnc.observe(apply)(variables | {"params": params}, x)
        value = losses.distillation(logits, answers, labels, temperature=3.0, alpha=0.7)
        ours, wanted = (each["params/Conv_2/kernel"][0].value for each in (own, seen))
        return value + jnp.square(ours - wanted).mean()

    value, gradients = jax.value_and_grad(loss_of)(variables["params"])
    np.testing.assert_allclose(metrics.loss, value, rtol=1e-5)
    for path, new in enumerate(jax.tree.leaves(after.variables["params"])):
        old, gradient = (jax.tree.leaves(tree)[path] for tree in (variables["params"], gradients))
        np.testing.assert_allclose(new, old - 0.1 * gradient, atol=1e-5)


@pytest.mark.parametrize("model", ["narrow", None])
def test_weights_in_a_file_teach_themselves(model, trained, tiny_data, tmp_path):
    """Files of weights alone do not say how many classes they have; their shapes do."""
    weights = str(tmp_path / "weights.safetensors")
    nnc.save_safetensors(weights, checkpoint.restore(trained))
    place = {"teacher": "self"} if model is None else {"teacher": weights, "teacher_model": model}
    config = dataclasses.replace(CONFIG, data_dir=tiny_data, init=weights, **place)
    goal = objective_of(config)
    assert jax.tree.structure(goal.given) == jax.tree.structure(checkpoint.restore(trained))
    objective.check(goal, network()[0].apply, network()[1], (32, 32, 3))


@pytest.mark.parametrize("teacher", ["self", "run", "file"])
def test_from_the_command_line(teacher, trained, tiny_data, tmp_path):
    """A compressed student nears what its teacher says; alpha=0 is training without one, bit for bit."""
    place = {"self": "self", "run": trained, "file": str(tmp_path / "teacher.nnc")}[teacher]
    variables = checkpoint.restore(trained)
    if teacher == "file":
        made = nnc.models.fitting(nnc.models.create("narrow"), variables)
        small = nnc.compress(variables)
        nnc.save(place, small, apply=made.apply, example=jnp.zeros((2, 32, 32, 3)))
    config = dataclasses.replace(
        CONFIG, data_dir=tiny_data, init=trained, recipe="fake_quantize:4", teacher=place, workdir=str(tmp_path / "run")
    )
    run = loop.train(config, initial_variables(config), objective_of(config))
    assert run.progress.is_finished
    assert "FakeQuantized" in {
        type(leaf).__name__
        for leaf in jax.tree.leaves(checkpoint.restore(run.workdir), is_leaf=lambda x: hasattr(x, "bits"))
    }
    if teacher == "self":
        found = []
        for name, options in {"alone": {"teacher": None}, "labels": {"alpha": 0.0}}.items():
            other = dataclasses.replace(config, **options, workdir=str(tmp_path / name))
            loop.train(other, initial_variables(other), objective_of(other))
            found.append(jax.tree.leaves(checkpoint.restore(tmp_path / name)))
        for one, another in zip(*found, strict=True):
            np.testing.assert_allclose(one, another, rtol=1e-4, atol=1e-5)


def test_refusals(trained, tiny_data, tmp_path):
    config = dataclasses.replace(CONFIG, data_dir=tiny_data, workdir=str(tmp_path / "run"))
    with pytest.raises(nnc.InputError, match="--teacher=self needs --init"):
        objective_of(dataclasses.replace(config, teacher="self"))
    with pytest.raises(nnc.InputError, match="need --teacher"):
        objective_of(dataclasses.replace(config, hints="a:b"))
    with pytest.raises(nnc.InputError, match="hint 'params/Conv_1/kernel': expected STUDENT:TEACHER"):
        objective_of(dataclasses.replace(config, teacher=trained, hints="params/Conv_1/kernel"))
    for hints, message in (
        ("params/Conv_9/kernel:params/Conv_1/kernel", "hint params/Conv_9/kernel: no weight that multiplies data"),
        ("params/Conv_1/kernel:params/Conv_3/kernel", "hints of student and teacher are .* expected the same sizes"),
    ):
        taught = dataclasses.replace(config, teacher=trained, hints=hints)
        with pytest.raises(nnc.InputError, match=message):
            loop.train(taught, None, objective_of(taught))
    teacher, variables = network(classes=7)
    with pytest.raises(nnc.InputError, match=r"are \[2, 4\] and \[2, 7\]: expected the same classes"):
        loop.train(config, None, objective.distilled(teacher.apply, variables))
    large = jax.jit(teacher.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    with pytest.raises(nnc.InputError, match=r"for images \[32, 32, 3\] .*expected a teacher of the student's images"):
        loop.train(config, None, objective.distilled(teacher.apply, large))
    assert not (tmp_path / "run" / "config.json").exists()
