"""Prompt accuracy: the share of samples that show what their captions say."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from genzoo.data.source import Judge


@dataclass
class PromptAccuracy:
    """Counts the verdicts of a judge by the group of the caption."""

    judge: Judge
    _verdicts: dict[str, list[bool]] = field(default_factory=dict)

    def add(self, images: np.ndarray, texts: Sequence[str]) -> None:
        """Judges samples, uint8 [N, H, W, C], by their texts; those of texts that cannot be judged
        are left out."""
        groups = [self.judge.group(text) for text in texts]
        known = [i for i, group in enumerate(groups) if group]
        if not known:
            return
        for i, shown in zip(
            known, self.judge.shows(images[known], [texts[i] for i in known]), strict=True
        ):
            self._verdicts.setdefault(groups[i], []).append(bool(shown))

    def report(self) -> dict[str, dict[str, float]]:
        """Group -> the share of samples that show their text, and their number."""
        return {
            group: {"accuracy": round(float(np.mean(verdicts)), 4), "samples": len(verdicts)}
            for group, verdicts in sorted(self._verdicts.items())
        }
