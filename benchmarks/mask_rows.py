"""The rows of networks that classify masks: a small EoMT from random weights on digits, synthetic VOC and the globe."""

from contseg.sweeps.cells import Row

TITLE = "Masks, EoMT with four layers"
SEEDS = (0, 1, 2)
METHODS = {
    "finetune": ("finetune", "{name: eomt, queries: 20, blocks: 2}"),
    "comformer": ("CoMFormer", "{name: eomt, queries: 20, blocks: 2, shares: softmax}"),
    "balconpas": ("BalConpas", "{name: eomt, queries: 20, blocks: 2}"),
    "simcis": ("SimCIS", "{name: eomt, queries: 20, blocks: 2, start: patches}"),
}
TRAINING = (
    "training.optimiser=adamw",
    "training.weight_decay=0.05",
    "training.clip=1.0",
    "training.lr=1e-3",
    "training.lr_later=5e-4",
    "training.schedule=warm-poly",
    "training.channels_last=false",
)
MEMORY = "scenario.memory={size: 30, mix: sampling, choice: balanced}"


def digits_rows() -> dict[str, Row]:
    """The packaged recipes of masks on digits, as they are."""
    rows = {
        f"masks-{method}": Row(label, f"digits/{'finetune-eomt' if method == 'finetune' else method}_5-1", (), SEEDS)
        for method, (label, _) in METHODS.items()
    }
    return rows | {"masks-joint": Row("joint", "digits/joint-eomt", (), SEEDS)}


def rows_over(
    finetune: str, joint: str, size: int, patch: int, epochs: tuple[int, int], given: tuple[str, ...]
) -> dict[str, Row]:
    """Rows of a recipe of pixels, with EoMT in the place of its network.

    Args:
        finetune, joint: the recipes.
        size: of the images in training.
        patch: side of a patch.
        epochs: of step 0 and of later steps.
        given: further overrides.
    """

    def overrides(head: str) -> tuple[str, ...]:
        backbone = f"{{name: dinov2_reg_tiny, patch: {patch}, size: {size}, stem: 1}}"
        network = f"network={{background: constant, backbone: {backbone}, head: {head}}}"
        return network, f"training.epochs=[{epochs[0]}, {epochs[1]}]", *TRAINING, *given

    rows = {}
    for method, (label, head) in METHODS.items():
        memory = (MEMORY,) if method == "balconpas" else ()
        rows[f"masks-{method}"] = Row(label, finetune, (f"method={{name: {method}}}", *memory, *overrides(head)), SEEDS)
    return rows | {"masks-joint": Row("joint", joint, overrides(METHODS["finetune"][1]), SEEDS)}
