"""Annotations of shapes: they are checked while the tests run, and no public one is left bare."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from genzoo.math import continuous, gaussian

SCHEDULE = continuous.Straight()


def test_shapes_that_do_not_fit_are_refused():
    x = jnp.ones((2, 3, 4))
    gaussian.q_sample(SCHEDULE, x, jnp.ones(2), x)
    gaussian.q_sample(SCHEDULE, np.ones((2, 3)), np.float32(0.5), np.ones((2, 3)))
    for arguments in ((x, jnp.ones(3), x), (x, jnp.ones(2), x[:1]), (x, jnp.ones((2, 1)), x)):
        with pytest.raises(jaxtyping.TypeCheckError, match="q_sample"):
            gaussian.q_sample(SCHEDULE, *arguments)
    with pytest.raises(jaxtyping.TypeCheckError):
        jax.jit(lambda t: gaussian.q_sample(SCHEDULE, x, t, x))(jnp.ones(3))
    with pytest.raises(jaxtyping.TypeCheckError):
        gaussian.q_sample(SCHEDULE, x.astype(int), 0.5, x)


def test_programs_of_their_own_run_unchecked():
    program = (
        "import sys, jax.numpy as jnp; from genzoo.math import continuous, gaussian;"
        "x = jnp.ones(3); gaussian.transition(continuous.Straight(), x.astype(int), x / 2, x / 4);"
        "sys.exit('beartype' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
