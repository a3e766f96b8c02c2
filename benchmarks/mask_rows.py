"""Rows of the leaderboard with networks that classify masks: a small EoMT from random weights on three kinds of images."""

from contseg.sweeps.cells import Row

TITLE = "masks, EoMT with four blocks"
SEEDS = (0, 1, 2)
PACKAGED = {"finetune": "finetune-eomt", "comformer": "comformer", "balconpas": "balconpas", "simcis": "simcis"}
"""Method -> its name in a packaged recipe of the digits."""
GAUSSIAN = "gaussian"
"""The Gaussian head on the trunk of fine-tuning: it takes the place of masks after step 0; later steps have no epochs."""
LABELS = {
    "finetune": "finetune", "comformer": "CoMFormer", "balconpas": "BalConpas", "simcis": "SimCIS",
    GAUSSIAN: "Gaussian head",
}  # fmt: skip
HEADS = {"comformer": ", shares: softmax, decision: owner", "simcis": ", start: patches"}
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
VOC = ("data.crop=64", "data.test_crop=null", "training.workers=0")


def digits() -> dict[str, Row]:
    """The packaged recipes of masks on digits, as they are, and the Gaussian head on their trunk."""
    rows = {method: Row(LABELS[method], f"digits/{name}_5-1", (), SEEDS) for method, name in PACKAGED.items()}
    closed = (f"method={{name: {GAUSSIAN}}}", "training.epochs=[32, 0]")
    rows[GAUSSIAN] = Row(LABELS[GAUSSIAN], "digits/finetune-eomt_5-1", closed, SEEDS)
    return rows | {"joint": Row("joint", "digits/joint-eomt", (), SEEDS)}


def synthetic_voc(tree: str) -> dict[str, Row]:
    """15-5 on synthetic images in VOC's layout.

    Args:
        tree: override that says where the images are.
    """
    return rows_over("voc/finetune_15-5_overlapped", "voc/joint_15-5", 64, 8, (30, 30), (tree, *VOC))


def globe() -> dict[str, Row]:
    """4-1 on the globe, without the weights that the package has for the network of pixels."""
    return rows_over("globe/finetune_4-1", "globe/joint", 128, 16, (40, 12), ("backbone_weights=null",))


def globe_by_pixel() -> dict[str, Row]:
    """The packaged recipes of pixels on the globe, as they are."""
    names = {"finetune": "finetune_4-1", "mib": "mib_4-1", GAUSSIAN: "gaussian_4-1", "joint": "joint"}
    labels = LABELS | {"mib": "MiB", "joint": "joint"}
    return {method: Row(labels[method], f"globe/{name}", (), SEEDS) for method, name in names.items()}


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

    def overrides(method: str) -> tuple[str, ...]:
        backbone = f"{{name: dinov2_reg_tiny, patch: {patch}, size: {size}, stem: 3, freeze: none}}"
        head = f"{{name: eomt, queries: 10, blocks: 2{HEADS.get(method, '')}}}"
        network = f"network={{background: constant, backbone: {backbone}, head: {head}}}"
        later = 0 if method == GAUSSIAN else epochs[1]
        return network, f"training.epochs=[{epochs[0]}, {later}]", *TRAINING, *given

    rows = {}
    for method, label in LABELS.items():
        memory = (MEMORY,) if method == "balconpas" else ()
        rows[method] = Row(label, finetune, (f"method={{name: {method}}}", *memory, *overrides(method)), SEEDS)
    return rows | {"joint": Row("joint", joint, overrides("joint"), SEEDS)}
