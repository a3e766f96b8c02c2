"""Golden files of IDRNet and of the plain heads: whole networks, training steps, isolated rules."""

import re
from types import SimpleNamespace

import numpy as np
import torch

from contseg.interop.names import load_strictly, renamed
from contseg.interop.ssseg import CONTEXT_NAMES, IDRNET_NAMES, PPM_BRANCH, ssseg_names, ssseg_options
from contseg.losses.cross_entropy import cross_entropy
from contseg.models.heads.idrnet.aggregation import aggregate, assign, class_means
from contseg.models.heads.idrnet.attention import SelfAttention
from contseg.models.heads.idrnet.network import IDRNet
from contseg.models.heads.idrnet.tables import Tables, label_statistics, label_sums
from contseg.models.layers import ASPP, PPM, resize
from contseg.models.segmenter import Segmenter
from tests.parity.fill import fill_image, fill_state
from tests.parity.goldens import claims, gradients, network_image, network_state

INTERNAL = {"class_relations_mean": "mean", "class_relations_var": "variance", "selected_classes_counter": "counter",
            "dl_cls_representations": "memory"}  # fmt: skip


def floats(tensors):
    """Integer rows keep what the network constructs."""
    return {name: value for name, value in tensors.items() if value.is_floating_point()}


def segmenter_of(golden, tensors, **changes) -> Segmenter:
    if "ppm" in golden.meta["config"] and "cityscapes" in golden.meta["config"]:
        changes["stage1_on"] = "bottleneck"  # 21 classes here, so that the file's own classes do not tell
    options = ssseg_options(tensors, **changes)
    return load_strictly(Segmenter(options, [golden.meta["num_classes"]]), ssseg_names(tensors, options))


def ignored(targets: torch.Tensor) -> torch.Tensor:
    """Labels with our ignore value."""
    return targets.long().where(targets >= 0, 255)


@claims(r"idrnet/(fcn|base_.*|ppm_.*|aspp_.*|upernet_((swintiny|swinlarge)_)?(aspp|ppm)_.*)")
def check_whole_network(golden):
    plain = floats(network_state(golden))
    variants = {"": plain}
    for name in ("calm", "diverse"):
        if name in golden.meta:
            about = golden.meta[name]
            changed = {
                key: value * about["factor"] if key in golden.meta.get("calm", about)["scaled"] else value
                for key, value in plain.items()
            }
            if name == "diverse":
                changed["dl_cls_representations"] = changed["dl_cls_representations"] * about["dl_factor"]
                changed["decoder_stage1.4.bias"] = golden.tensor("in_diverse_stage1_bias")
            variants[f"{name}_"] = changed
    for prefix, tensors in variants.items():
        tolerance = 3e-4 if prefix or "swin" in golden.path.stem else 0.5
        segmenter = segmenter_of(golden, tensors)
        for name, value in asked(segmenter, network_image(golden)).items():
            if f"{prefix}out_{name}" in golden.arrays:
                golden.check_close(f"{prefix}out_{name}", value, tolerance)
            elif f"{prefix}out_{name}_sub" in golden.arrays:
                rows = golden.tensor(f"idx_{name}_sub").long()
                golden.check_close(f"{prefix}out_{name}_sub", value[:, rows], tolerance)


@torch.no_grad()
def asked(segmenter, image) -> dict[str, torch.Tensor]:
    """Everything a golden may hold, by its names."""
    stages = segmenter.backbone(image)
    found = {f"c{number + 2}": segmenter.backbone.activate(stage) for number, stage in enumerate(stages)}
    seen = {}
    head = segmenter.head
    if isinstance(head, IDRNet):
        modules = {"coarse_context_module": head.context, "id_context": head.attention, "stage2_in": head.decoder_stage2}
        if head.context_refiner is not None:
            modules[f"coarsecontext_refiner_{head.options.refine}"] = head.context_refiner
        for name, module in modules.items():
            if module is None:
                continue

            def keep(_, inputs, output, name=name):
                seen[name] = inputs[0] if name == "stage2_in" else output
                if name == "id_context":
                    seen["refiner_in"] = inputs[0]

            module.register_forward_hook(keep)
        _, passed = head.run([found[f"c{stage + 2}"] for stage in head.uses])
        seen |= {"feats": passed.features, "logits_stage1": passed.stage1}
    if segmenter.auxiliary is not None:
        seen["aux"] = segmenter.auxiliary(found["c4"])
    return found | seen | {"logits": segmenter(image).logits}


@claims(r"idrnet/train_.*")
def check_training(golden):
    state = floats(network_state(golden))
    for name in INTERNAL:
        state[name] = golden.tensor(f"in_{name}")
    segmenter = segmenter_of(golden, state, dropout=0.0).double().train()
    head, meta = segmenter.head, golden.meta
    image = torch.from_numpy(fill_image(tuple(meta["image"]["shape"]), meta["image"]["seed"])).double()
    labels = ignored(golden.tensor("in_targets"))
    about = meta["optimizer"]
    optimiser = torch.optim.SGD(segmenter.parameters(), about["lr"], about["momentum"], weight_decay=about["weight_decay"])
    deep = "ppm" in golden.path.stem
    for step in (1, 2):
        tolerance = 1e-3 if deep and step == 2 else 1e-5
        output = segmenter(image)
        terms = [(output.logits, 1.0)] + [(extra.logits, extra.weight) for extra in output.auxiliary]
        loss = sum(weight * published_loss(logits, labels) for logits, weight in terms)
        present = assign(output.passed.stage1).present
        removed = torch.stack([row.nonzero().max() for row in present])
        assert removed.tolist() == meta[f"step{step}"]["removed"]
        for image_removed in removed:
            head.tables.counter[image_removed] += 1
        without = head.intervene(output.passed, segmenter.classifier, output.logits, labels, removed)
        golden.check_close(f"out{step}_logits_stage1", output.passed.stage1, tolerance)
        golden.check_close(f"out{step}_logits_stage2", output.logits, tolerance)
        golden.check_close(f"out{step}_logits_stage2_intervened", without, tolerance)
        golden.check_close(f"out{step}_loss", loss.reshape(1), tolerance)
        for name, ours in INTERNAL.items():
            golden.check_close(f"out{step}_{name}", getattr(head.tables, ours), tolerance)
        optimiser.zero_grad()
        loss.backward()
        modules, parameters = dict(segmenter.named_modules()), dict(segmenter.named_parameters())
        for name in golden.arrays:
            if found := re.fullmatch(rf"out{step}_bn_(mean|var)_(.*)", name):
                norm = modules[renamed(f"{found[2]}.", IDRNET_NAMES).rstrip(".")]
                golden.check_close(name, getattr(norm, f"running_{found[1]}"), tolerance)
            elif found := re.fullmatch(rf"grad{step}_(.*)", name):
                gradient = parameters[renamed(found[1].replace("backbone_net", "backbone"), IDRNET_NAMES)].grad
                if deep and step == 2:
                    expected = float(np.linalg.norm(golden.arrays[name]))
                    assert abs(float(gradient.norm()) - expected) <= 1e-2 * expected, name
                else:
                    golden.check(name, gradient, 1e-4)
        optimiser.step()


@claims(r"idrnet/iso_insert.*")
def check_look_up(golden):
    feats, logits = golden.tensor("in_feats", grad=True), golden.tensor("in_logits")
    memory = golden.tensor("in_dl")
    stand_in = SimpleNamespace(tables=SimpleNamespace(memory=memory, seen=torch.ones(len(memory), dtype=torch.bool)))
    found = IDRNet._look_up(stand_in, feats, logits)
    golden.check("out_feats_with_dl", found)
    golden.check("grad_feats", torch.autograd.grad(found, feats, golden.tensor("in_grad_out"))[0])


@claims(r"idrnet/iso_aggregate.*")
def check_aggregation(golden):
    for name, drop in golden.meta["drop_nonpositive"].items():
        context, logits = golden.tensor("in_context", grad=True), golden.tensor("in_logits", grad=True)
        made = assign(logits)
        removed = golden.tensor("in_removed").long() if name.endswith("removed") else None
        found = aggregate(class_means(context, made), made, golden.tensor("in_relations"), drop, removed).view_as(context)
        golden.check(f"out_{name}", found, 1e-5)
        grads = torch.autograd.grad(found, (context, logits), golden.tensor("in_grad_out"))
        golden.check(f"grad_context_{name}", grads[0], 1e-5)
        golden.check(f"grad_logits_{name}", grads[1], 1e-5)


@claims(r"idrnet/iso_memory_update.*")
def check_memory_update(golden):
    labels, memory = ignored(golden.tensor("in_targets")), golden.tensor("in_dl")
    tables = Tables(*memory.shape)
    tables.memory = memory
    for call in (1, 2):
        tables.memory_momentum = golden.meta[f"momentum_{call}"]
        tables.update_memory(*label_sums(golden.tensor(f"in_feats_{call}"), labels, len(memory)))
        golden.check(f"out_dl_{call}", tables.memory, 1e-5)


def tables_of(golden, feats) -> Tables:
    counter = golden.tensor("in_counter")
    tables = Tables(len(counter), feats.shape[1], golden.meta["momentum"], golden.meta["memory_momentum"])
    tables.mean, tables.variance = golden.tensor("in_relations_mean"), golden.tensor("in_relations_var")
    tables.counter, tables.memory = counter, golden.tensor("in_dl")
    return tables


def move_tables(tables, golden, prefix="in_") -> None:
    """One update from given logits, as `IDRNet.intervene` does it."""
    labels = ignored(golden.tensor(f"{prefix}targets"))
    removed, count = golden.tensor(f"{prefix}removed").long(), len(tables.counter)
    for image_removed in removed:
        tables.counter[image_removed] += 1
    before, after = (
        cross_entropy(resize(golden.tensor(f"{prefix}{name}"), labels.shape[1:]), labels)
        for name in ("logits_stage2", "logits_stage2_intervened")
    )
    figures, pixels = label_statistics(before, labels, count)
    tables.update_relations(removed, label_statistics(after, labels, count)[0] - figures, pixels)
    tables.update_memory(*label_sums(golden.tensor(f"{prefix}feats"), labels, count))


@claims(r"idrnet/iso_relation_update.*")
def check_relation_update(golden):
    tables = tables_of(golden, golden.tensor("in_feats"))
    present = assign(golden.tensor("in_logits_stage1")).present
    counter = tables.counter.clone()
    for row, (here, removed) in enumerate(zip(present, golden.arrays["in_removed"], strict=True)):
        chances = (1 / counter).where(here, 0)
        np.testing.assert_allclose(
            (chances / chances.sum()).numpy(), golden.arrays["out_choice_probabilities"][row], rtol=1e-5
        )
        counter[int(removed)] += 1
    move_tables(tables, golden)
    for name, ours in (("relations_mean", "mean"), ("relations_var", "variance"), ("counter", "counter"), ("dl", "memory")):
        golden.check(f"out_{name}", getattr(tables, ours), 1e-5)
    labels = ignored(golden.tensor("in_targets"))
    weights = (("logits_stage2", 1.0), ("logits_stage1", 0.4), ("logits_aux", 0.4))
    terms = torch.stack([weight * published_loss(golden.tensor(f"in_{name}"), labels) for name, weight in weights])
    golden.check("out_losses", terms, 1e-5)
    golden.check("out_loss", terms.sum().reshape(1), 1e-5)


def published_loss(logits, labels):
    """Mean cross-entropy over valid pixels of resized logits."""
    return cross_entropy(resize(logits, labels.shape[1:]), labels).sum() / (labels != 255).sum()


@claims(r"idrnet/iso_sync.*")
def check_average_over_ranks(golden):
    each = []
    for rank in range(golden.meta["world_size"]):
        tables = tables_of(golden, golden.tensor("in_rank0_feats"))
        move_tables(tables, golden, f"in_rank{rank}_")
        each.append(tables)
    waiting = [[getattr(tables, name).clone() for tables in each] for name in ("mean", "variance", "counter", "memory")]
    sums = iter([*(sum(values) for values in waiting), sum(tables.seen.float() for tables in each)])
    each[0].average(SimpleNamespace(count=len(each), sum=lambda tensor: next(sums)))
    for name, ours in (("relations_mean", "mean"), ("relations_var", "variance"), ("counter", "counter"), ("dl", "memory")):
        golden.check(f"out_{name}", getattr(each[0], ours), 1e-5)


@claims(r"idrnet/iso_losses.*")
def check_losses(golden):
    names = ("stage2", "stage1", "aux")
    logits = [golden.tensor(f"in_{name}", grad=True) for name in names]
    labels = ignored(golden.tensor("in_targets"))
    loss = sum(golden.meta["weights"][name] * published_loss(x, labels) for name, x in zip(names, logits, strict=True))
    golden.check("out_loss", loss.reshape(1), 1e-6)
    for name, gradient in zip(names, gradients(loss, *logits), strict=True):
        golden.check(f"grad_{name}", gradient, 1e-6)


def channels_of(golden) -> tuple[int, int]:
    return golden.arrays["in_0"].shape[1], golden.arrays["out"].shape[1]


MODULES = {
    "iso_selfattention": (
        lambda golden: SelfAttention(
            *channels_of(golden), golden.meta["transform_channels"], golden.arrays["in_1"].shape[1]
        ),
        [(r"^(key|query|value|out)_project\.", r"\1.")],
    ),
    "iso_ppm": (
        lambda golden: PPM(*channels_of(golden), tuple(golden.meta["pool_scales"])),
        [(r"^", "context."), PPM_BRANCH, (r"^context\.", "")],
    ),
    "iso_aspp": (
        lambda golden: ASPP(*channels_of(golden), tuple(golden.meta["dilations"])),
        [(r"^", "."), *CONTEXT_NAMES, (r"^\.", "")],
    ),
}


@claims(r"idrnet/iso_(selfattention|ppm|aspp).*")
def check_module(golden):
    make, rules = MODULES["_".join(golden.path.stem.split("_")[:2])]
    module = make(golden).eval()
    state = fill_state(golden.meta["manifest"])
    found = {renamed(name, rules): torch.from_numpy(np.asarray(value)) for name, value in state.items()}
    module.load_state_dict(found)
    inputs = [golden.tensor(name, grad=True) for name in ("in_0", "in_1") if name in golden.arrays]
    out = module(*inputs)
    golden.check("out", out, 1e-5)
    parameters = {renamed(name.removeprefix("gradw_"), rules): name for name in golden.arrays if name.startswith("gradw_")}
    own = dict(module.named_parameters())
    wanted = [*inputs, *(own[name] for name in parameters)]
    found_grads = torch.autograd.grad(out, wanted, golden.tensor("in_grad_out"))
    for name, value in zip([*(f"grad_{n}" for n in range(len(inputs))), *parameters.values()], found_grads, strict=True):
        golden.check(name, value, 1e-5)
