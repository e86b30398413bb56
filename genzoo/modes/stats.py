"""`--mode=stats`: writes the moments of a data set's features, a reference for Fréchet distances.

The data are those of the config or, for a network with a standard protocol, those of the protocol.
Given as eval.reference, the file saves computing the features of a large data set again. The mode
needs a config for its data, but no trained model.
"""

from functools import partial
from pathlib import Path

from ml_collections import FrozenConfigDict

from genzoo.core.errors import UserError
from genzoo.data.fields import Image
from genzoo.evaluate import reference
from genzoo.evaluate.distances import parsed
from genzoo.experiment import Experiment, require_kind
from genzoo.modes.rulers import rulers_of
from genzoo.runtime.agreement import by_first
from genzoo.workdir import Workdir, announced


def stats(config: FrozenConfigDict, workdir: Path) -> dict:
    """Writes `statistics_NETWORK.npz` for every network in eval.distances; returns the distances of
    the test images ("floor") and of noise ("ceiling") from the training images."""
    experiment, place = Experiment(config), Workdir(workdir)
    named = parsed(config.eval.distances)
    if not named:
        raise UserError(
            "--mode=stats needs eval.distances, whose networks it uses: name some, such as "
            "--config.eval.distances=fd_fashion."
        )
    require_kind(experiment, (Image,), "stats", "measures images")
    place.check_writable()
    made, rulers = [], rulers_of(experiment)
    for ruler in rulers.values():
        made.append(place.path / f"statistics_{ruler.network.name.replace(':', '_')}.npz")
        by_first(partial(
            reference.save, made[-1], ruler.real.train.moments, ruler.network.protocol, ruler.origin
        ))  # fmt: skip
    ends, count = {}, config.eval.samples
    for one in named:
        ruler = rulers[one.network]
        ends[ruler.called(one, count)] = {**ruler.ends(one), "protocol": ruler.protocol(one, count)}
    return {"distances": ends, "files": announced(made)}
