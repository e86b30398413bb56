"""`--mode=stats`: writes the moments of a data set's features, a reference for Fréchet distances.

Given as eval.reference, the file saves computing the features of a large data set again. The mode
needs a config for its data, but no trained model.
"""

from pathlib import Path

from ml_collections import FrozenConfigDict

from genzoo.core.errors import UserError
from genzoo.data.fields import Image
from genzoo.evaluate import reference
from genzoo.evaluate.distances import METRICS, parsed
from genzoo.experiment import Experiment, require_kind
from genzoo.modes.rulers import ruler
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
    made, ends, rulers = [], {}, {}
    for one in named:
        keep = any(METRICS[o.metric].features for o in named if o.network == one.network)
        own = rulers.setdefault(one.network, ruler(experiment, one.network, keep))
        protocol = own.protocol(config.eval.samples)
        ends[str(one)] = {**own.ends(one), "protocol": protocol}
        path = place.path / f"statistics_{own.network.name.replace(':', '_')}.npz"
        if path not in made:
            made.append(path)
            by_first(lambda path=path, own=own: reference.save(
                path, own.real.train.moments, own.network.protocol, own.origin
            ))  # fmt: skip
    return {"distances": ends, "files": announced(made)}
