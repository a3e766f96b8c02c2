"""SSUL: Semantic Segmentation with Unknown Label for Exemplar-based Class-Incremental Learning (Cha et al., 2021)."""

from dataclasses import dataclass

from contseg.methods.unknown import WithUnknown


@dataclass(frozen=True)
class SSUL(WithUnknown):
    """An output for unknown classes, from which new classes start; pseudo-labels; later steps train classifiers only.

    Background is split: a pixel without an annotated class is *unknown* (a future class) where a saliency map is positive,
    or everywhere without saliency maps (policy `ssul`). Later steps freeze the backbone, the head, the norms and the
    classifiers of old classes, which prevents forgetting. They train the classifiers of new classes and of unknown, and that
    of background with a small learning rate.

    SSUL-M is this method with a replay memory (`scenario.memory`).
    """

    name = "ssul"
