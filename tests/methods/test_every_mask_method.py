"""What every method promises on a network that classifies masks: a small EoMT with two old classes and one new one."""

import copy
from dataclasses import replace

import pytest
import torch

from contseg.errors import ContsegError
from contseg.losses.masks.targets import MaskTargets
from contseg.methods.mask_relabelling import pseudo_counts
from contseg.methods.mask_supervision import match, matched_count, targets_of
from contseg.methods.method import StepContext
from contseg.methods.registry import make_method
from contseg.models.eomt.segmenter import EoMTSegmenter
from contseg.models.options import NetworkOptions
from contseg.ranks import Ranks
from contseg.scenarios.segments import with_targets
from tests.kinds import MASKS, PIXELS
from tests.methods.conftest import OLD, SEEN, Lesson, random_batch

QUERIES = 7
CASES = [(name, {}) for name in MASKS if name != "gaussian"] + [
    ("comformer", {"shares": "softmax"}),
    ("comformer", {"focal": False, "pseudo": False}),
    ("balconpas", {"tokens": 0.0}),
    ("simcis", {"virtual": 3}),
    ("simcis", {"virtual": 0}),
    ("simcis", {"variant": "released"}),
]
LEAKING = [("balconpas", {}), ("simcis", {"variant": "released"})]
RELABELS = {"plop-masks", "comformer", "balconpas", "simcis"}


def options(name: str, shares: str = "sigmoid", **changes) -> NetworkOptions:
    backbone = {"name": "dinov2_reg_tiny", "patch": 8, "size": 32, "options": {"embed_dim": 16, "num_heads": 2}}
    start = "patches" if name == "simcis" else "learned"
    head = {"name": "eomt", "queries": QUERIES, "blocks": 2, "shares": shares, "start": start}
    return NetworkOptions(backbone=backbone, head=head, background="constant", **changes)


def blocky(batch):
    """Labels in squares of the left half, so that there are few masks and each has an inside."""
    labels = batch.labels[:, ::16, ::16].repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[:, :, 16:] = 0
    return replace(batch, images=batch.images[:, :, ::2, ::2], labels=labels)


def leaking(batch):
    """The first image shows the class of the next step, of which there is no output, at the left."""
    labels = batch.labels.clone()
    labels[0, 24:, :16] = SEEN
    return replace(batch, labels=labels)


def confident(predict):
    """A teacher whose first two queries show classes 1 and 2 in the right half, and the others nothing."""

    def changed(batch):
        output = predict(batch)
        masks = output.masks
        classes, maps = torch.full_like(masks.class_logits, -3.0), torch.full_like(masks.mask_logits, -9.0)
        middle, half = maps.shape[2] // 2, maps.shape[3] // 2
        classes[:, 2:, -1] = 3.0
        for query, rows in enumerate((slice(0, middle), slice(middle, None))):
            classes[:, query, query + 1] = 3.0
            maps[:, query, rows, half:] = 9.0
        output.masks = masks._replace(class_logits=classes, mask_logits=maps)
        return output

    return changed


@pytest.fixture(params=CASES, ids=lambda case: " ".join([case[0], *map(str, case[1].values())]))
def case(request):
    name, changes = request.param
    shares = changes.get("shares", "sigmoid")
    return make_method(name, **{key: value for key, value in changes.items() if key != "shares"}), options(name, shares)


@pytest.fixture
def teach(make_scenario):
    """`teach(method, network, index)`: a lesson whose teacher finds masks of old classes, in float64."""

    def give(method, network, index=1):
        torch.manual_seed(0)
        teacher, student = (EoMTSegmenter(network, [OLD]).double() for _ in range(2))
        student.load_state_dict(teacher.state_dict())
        if index:
            student.grow(1, method.new_classes_start_from)
            student.double()
            with torch.no_grad():
                for parameter in student.head.parameters():
                    parameter += 0.02 * torch.randn(parameter.shape)
        student.train()
        student.anneal(1, 0, 10)
        teacher.anneal(1, 0, 10)
        scenario = make_scenario(method)
        if index:
            first = StepContext.for_loop(teacher, None, scenario[0], method, epochs=0)
            batches = [blocky(random_batch(seed, lowest=1)) for seed in (20, 21)]
            seen = [
                replace(each, labels=each.labels.where(each.labels != OLD, 1), annotated=each.annotated[:, :OLD])
                for each in batches
            ]
            method.before_step(first)
            teacher.train()
            for each in seen:
                method.losses(each, Lesson(method, first).forward(each)[0], None, first)
            method.after_step(first)
        context = StepContext.for_loop(student, teacher if index else None, scenario[index], method)
        if context.predict_teacher is not None:
            context.predict_teacher = confident(context.predict_teacher)
        method.prepare(student, context.step)
        student.freeze_unused(method.taps if context.teacher else method.first_taps)
        lesson = Lesson(method, context)
        context.loader = [lesson.fitting(blocky(random_batch(seed))) for seed in (10, 11)]
        method.before_step(context)
        context.update_seed = 5
        return lesson

    return give


@pytest.fixture
def batch():
    return blocky(random_batch())


def asked(lesson, batch):
    """All terms as the engine sums them: with the auxiliary outputs."""
    batch = lesson.fitting(batch)
    student, teacher = lesson.forward(batch)
    batch = lesson.method.relabel(batch, teacher, lesson.context)
    terms = lesson.method.losses(batch, student, teacher, lesson.context)
    each = {f"auxiliary_{one.name}": lesson.method.supervise(one, batch, lesson.context) for one in student.auxiliary}
    return terms | each


@pytest.mark.parametrize("index", [0, 1])
def test_every_term_reaches_the_student_and_none_the_teacher(case, teach, batch, index):
    method, network = case
    lesson = teach(method, network, index)
    if not index:
        batch = replace(batch, labels=batch.labels.where(batch.labels != 3, 1), annotated=batch.annotated.roll(2, 1))
    terms = asked(lesson, batch)
    assert {"class", "auxiliary_block1", "auxiliary_block2"} <= terms.keys()
    for name, value in terms.items():
        assert value.shape == (), name
        assert torch.isfinite(value), name
        lesson.context.student.zero_grad()
        value.backward(retain_graph=True)
        assert any(p.grad is not None and p.grad.any() for p in lesson.context.student.parameters()), name
    if lesson.context.teacher is not None:
        assert all(p.grad is None for p in lesson.context.teacher.parameters())
    lesson.context.student.zero_grad()
    sum(asked(lesson, batch).values()).backward()
    lacking = [name for name, p in lesson.context.student.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []


def test_what_a_method_adds_is_of_old_classes_and_leaves_annotated_masks_alone(case, teach, batch):
    method, network = case
    lesson = teach(method, network)
    batch = lesson.fitting(batch)
    labels = batch.labels.clone()
    _, teacher = lesson.forward(batch)
    found = method.relabel(batch, teacher, lesson.context)
    assert torch.equal(batch.labels, labels)
    assert batch.targets is None
    added = pseudo_counts(found)
    if method.name not in RELABELS or not getattr(method, "pseudo", True):
        assert added == [0, 0, 0]
        return
    assert sum(added) > 0
    first = method.name in ("balconpas", "simcis")
    for count, before, after in zip(added, targets_of(batch), targets_of(found), strict=True):
        length = len(after.classes) - count
        own = slice(count, None) if first else slice(0, length)
        assert torch.equal(after.masks[own], before.masks)
        assert torch.equal(after.classes[own], before.classes)
        more = slice(0, count) if first else slice(length, None)
        assert (after.classes[more] < OLD).all()
        assert not (after.masks[more].any(dim=0) & before.covered()).any()


def test_an_exemplar_gets_no_masks_and_its_free_queries_do_not_count(teach, batch):
    method = make_method("balconpas")
    lesson = teach(method, options("balconpas"))
    annotated = batch.annotated.clone()
    annotated[0] = torch.tensor([False, True, False, False])
    batch = replace(batch, annotated=annotated)
    student, teacher = lesson.forward(batch)
    found = method.relabel(batch, teacher, lesson.context)
    assert pseudo_counts(found)[0] == 0
    assert sum(pseudo_counts(found)) > 0
    logits = student.masks.class_logits
    logits.retain_grad()
    method.losses(found, student, teacher, lesson.context)["class"].backward()
    matched = len(targets_of(found)[0].classes)
    assert int(logits.grad[0].flatten(1).any(dim=1).sum()) == matched
    assert logits.grad[1].flatten(1).any(dim=1).all()


def test_two_ranks_learn_what_one_learns(case, teach):
    """Means over ranks of values and gradients are those of one process; the sums that ranks exchange are replayed."""
    method, network = case
    lesson = teach(method, network)
    both = blocky(random_batch(3))
    both = lesson.fitting(leaking(both) if method.handles_leak else both).rows([0, 1])
    start = {name: value.clone() for name, value in method.state_dict().items()}

    def gradients(ranks, batch):
        method.load_state_dict({name: value.clone() for name, value in start.items()})
        lesson.context.ranks, lesson.context.generator = ranks, torch.Generator().manual_seed(2)
        lesson.context.student.zero_grad()
        total = sum(asked(lesson, batch).values())
        total.backward()
        return total, {n: p.grad.clone() for n, p in lesson.context.student.named_parameters() if p.grad is not None}

    expected, whole = gradients(Ranks(), both)
    heard: list[list[torch.Tensor]] = [[], []]
    for rank in (0, 1):  # what each rank would send

        def send(tensor, rank=rank):
            heard[rank].append(tensor.detach().clone())
            return tensor

        def spread(tensor, rank=rank):
            heard[rank].append(tensor.detach().clone())
            return torch.cat([tensor, tensor])

        gradients(Ranks(sum=send, gather=spread, rank=rank, count=2), both.rows([rank]))
    totals, parts = [], []
    for rank in (0, 1):
        answers = iter(list(zip(*heard, strict=True)))
        ranks = Ranks(
            sum=lambda tensor, answers=answers: sum(next(answers)),
            gather=lambda tensor, answers=answers: torch.cat(next(answers)),
            rank=rank,
            count=2,
        )
        total, part = gradients(ranks, both.rows([rank]))
        totals.append(total)
        parts.append(part)
    assert torch.allclose(sum(totals) / 2, expected, rtol=1e-9)
    for name, value in whole.items():
        assert torch.allclose((parts[0][name] + parts[1][name]) / 2, value, rtol=1e-6, atol=1e-10), name


@pytest.mark.parametrize(("name", "changes"), LEAKING)
def test_the_class_of_the_next_step_is_a_mask_without_a_class_and_spares_its_image(name, changes, teach, batch):
    method = make_method(name, **changes)
    lesson = teach(method, options(name))
    batch = lesson.fitting(leaking(batch))
    student, teacher = lesson.forward(batch)
    found = method.relabel(batch, teacher, lesson.context)
    assert torch.equal(found.labels, batch.labels)
    counts, targets = pseudo_counts(found), targets_of(found)
    assert counts[0] == 0
    assert all(count > 0 for count in counts[1:])
    assert [SEEN in one.classes for one in targets] == [True, False, False]
    (place,) = (targets[0].classes == SEEN).nonzero()[:, 0].tolist()
    assert torch.equal(targets[0].masks[place], batch.labels[0] == SEEN)
    matched = match(student, found, lesson.context)
    mine = (matched.matches.images == 0) & (matched.matches.targets == place)
    query = int(matched.matches.queries[mine])
    assert matched.classes[0, query] == student.masks.class_logits.shape[2] - 1, "no object"
    assert matched_count(found, QUERIES, leaked=True) == (matched.classes < SEEN).sum() == matched_count(found, QUERIES) - 1
    student.masks.mask_logits.retain_grad()
    method.losses(found, student, teacher, lesson.context)["mask"].backward()
    assert student.masks.mask_logits.grad[0, query].any(), "it learns its mask all the same"


def test_others_do_not_see_the_class_of_the_next_step(teach, batch):
    lesson = teach(make_method("simcis"), options("simcis"))
    batch = lesson.fitting(leaking(batch))
    found = lesson.method.relabel(batch, lesson.forward(batch)[1], lesson.context)
    assert all((one.classes < SEEN).all() for one in targets_of(found))


def test_the_selection_of_simcis_as_released_is_a_sum_over_patches(teach, batch):
    terms = [
        asked(teach(make_method("simcis", variant=variant), options("simcis")), batch) for variant in ("paper", "released")
    ]
    assert torch.allclose(terms[1]["selection"], QUERIES * terms[0]["selection"], rtol=1e-9)


def test_state_goes_into_a_new_method_which_then_does_the_same(case, teach, batch):
    method, network = case
    lesson = teach(method, network)
    saved = copy.deepcopy(method.state_dict())

    def terms():
        lesson.context.generator = torch.Generator().manual_seed(1)
        torch.manual_seed(1)
        return asked(lesson, batch)

    expected = terms()
    lesson.method = make_method(**_hyper(method))
    lesson.method.load_state_dict(saved)
    for name, value in terms().items():
        assert torch.equal(value, expected[name]), name


def _hyper(method):
    from contseg.methods.registry import hyper_parameters

    return hyper_parameters(method)


@pytest.mark.parametrize("name", [name for name in MASKS if name not in ("gaussian", "simcis")])
def test_old_classes_are_what_they_were_when_classes_are_added(name, teach, batch):
    method = make_method(name)
    torch.manual_seed(0)
    student = EoMTSegmenter(options(name), [OLD]).double().eval()
    images = student.normalise(batch.images).double()
    before = student(images).masks
    student.grow(1, method.new_classes_start_from)
    after = student.double()(images).masks
    assert torch.equal(after.mask_logits, before.mask_logits)
    if name == "mib-masks":
        chances = [one.class_logits.softmax(dim=2)[..., :OLD] for one in (before, after)]
        assert torch.allclose(*chances, rtol=1e-12)
        return
    assert torch.equal(after.class_logits[..., :OLD], before.class_logits[..., :OLD])
    assert torch.equal(after.class_logits[..., -1], before.class_logits[..., -1])


def test_more_masks_than_queries_are_counted_once_per_image(teach, batch):
    lesson = teach(make_method("finetune"), options("finetune"))
    many = torch.zeros(QUERIES + 2, 32, 32, dtype=torch.bool)
    many[torch.arange(QUERIES + 2), torch.arange(QUERIES + 2)] = True
    classes = torch.full((QUERIES + 2,), OLD)
    some = [tuple(one) for one in targets_of(batch)]
    crowded = replace(batch, targets=(tuple(MaskTargets(classes, many)), *some[1:]))
    student, _ = lesson.forward(batch)
    with pytest.warns(UserWarning, match="more masks than the network has queries"):
        terms = lesson.method.losses(crowded, student, None, lesson.context)
    lesson.method.supervise(student.auxiliary[0], crowded, lesson.context)
    assert all(torch.isfinite(term) for term in terms.values())
    assert lesson.context.left_out == 2


def test_images_without_masks_have_finite_terms(case, teach, batch):
    method, network = case
    empty = replace(batch, labels=torch.zeros_like(batch.labels))
    terms = asked(teach(method, network), empty)
    assert all(torch.isfinite(term) for term in terms.values())
    assert not with_targets(empty).targets[0][0].numel()


@pytest.mark.parametrize("name", sorted({*PIXELS} - {*MASKS, "mbs"}))
def test_a_method_of_pixels_says_that_it_cannot_learn_masks(name):
    with pytest.raises(ContsegError, match=rf"method\.name: '{name}' learns from a class for each pixel, and .* with eomt"):
        make_method(name).check(options(name), [])


@pytest.mark.parametrize("name", sorted(set(MASKS) - set(PIXELS)))
def test_a_method_of_masks_says_that_it_needs_them(name):
    with pytest.raises(ContsegError, match=rf"method\.name: '{name}' learns from masks .*; set network\.head=eomt"):
        make_method(name).check(NetworkOptions(backbone="resnet18"), [])


def test_simcis_names_the_key_that_it_needs():
    with pytest.raises(ContsegError, match=r"network\.head\.start: method 'simcis' .* set network\.head\.start=patches"):
        make_method("simcis").check(options("comformer"), [])
