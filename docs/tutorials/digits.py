"""The network of the tutorials: a small convolutional one, trained on scikit-learn's digits in a few seconds."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

images, labels = load_digits(return_X_y=True)
images, labels = jnp.asarray(images.reshape(-1, 8, 8, 1) / 16, jnp.float32), jnp.asarray(labels)
train, test = (images[:1200], labels[:1200]), (images[1200:], labels[1200:])

widths = (32, 64, 64)
convolutions = [layer for width in widths for layer in (nn.Conv(width, (3, 3)), nn.relu)]
net = nn.Sequential([*convolutions, lambda x: x.mean((1, 2)), nn.Dense(10)])


def cross_entropy(logits, labels):
    """The mean over a batch."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def accuracy(apply, variables):
    """On the test images."""
    return float((jax.jit(apply)(variables, test[0]).argmax(-1) == test[1]).mean())


def trained(steps=600):
    """The variables, after so many batches of 64 images."""
    variables, tx = net.init(jax.random.key(0), images[:1]), optax.adam(optax.cosine_decay_schedule(4e-3, steps))

    @jax.jit
    def step(variables, state, rows):
        gradients = jax.grad(lambda v: cross_entropy(net.apply(v, train[0][rows]), train[1][rows]))(variables)
        updates, state = tx.update(gradients, state)
        return optax.apply_updates(variables, updates), state

    state = tx.init(variables)
    for n in range(steps):
        variables, state = step(variables, state, jax.random.randint(jax.random.key(n), (64,), 0, len(train[0])))
    return variables


variables = trained()
