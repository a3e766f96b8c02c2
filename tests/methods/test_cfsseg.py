"""CFSSeg: sums that depend on no order, exact new columns, pseudo-labels, what it stores, and the released differences."""

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
import torch

from contseg.errors import ContsegError
from contseg.interop.pretrained import load_pretrained, load_statistics, save_pretrained
from contseg.interop.segmenter_file import load_segmenter
from contseg.methods.gaussian import ridge
from contseg.methods.gaussian.random_features import RandomFeatures
from contseg.methods.gaussian.ridge import RidgeSums, symmetric
from contseg.methods.method import StepContext
from contseg.methods.registry import make_method
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.ranks import Ranks
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step
from tests.engine.runs import Watching, interrupted, learn, lines, same, tiny_recipe, weights

NAMES = ("background", "cat", "dog", "fox")
FEATURES = RandomFeatures.drawn("head", 6, expansion=20)
KINDS = pytest.mark.parametrize("balanced", [False, True], ids=["pixels", "class-balanced"])


def cells(count=60, seed=0, classes=4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    labels[torch.rand(count, generator=generator) < 0.1] = 255
    return torch.rand(count, 6, generator=generator, dtype=torch.float64), labels


def sums_of(*groups, balanced=False, names=NAMES) -> RidgeSums:
    sums = RidgeSums.empty(FEATURES, balanced).grown(names)
    for group in groups:
        sums.add(*group)
    return sums


def solved(g, labels, gamma, weights=None) -> torch.Tensor:
    """The ridge regression of all cells at once, as least squares."""
    known = labels < 4
    phi, targets = FEATURES(g[known]), torch.nn.functional.one_hot(labels[known], 4).double()
    root = torch.ones(len(phi)).double() if weights is None else weights[known].sqrt()
    rows = torch.cat([phi * root[:, None], gamma**0.5 * torch.eye(20).double()])
    return torch.linalg.lstsq(rows, torch.cat([targets * root[:, None], torch.zeros(20, 4).double()])).solution.T


class TestSums:
    @KINDS
    def test_give_the_solution_for_all_cells_at_once(self, balanced):
        g, labels = cells()
        each = (1 / torch.bincount(labels, minlength=256).double())[labels] if balanced else None
        found = sums_of((g, labels), balanced=balanced).weight(0.5)
        torch.testing.assert_close(found, solved(g, labels, 0.5, each), rtol=0, atol=1e-10)

    @KINDS
    def test_do_not_depend_on_the_order_or_the_size_of_batches(self, balanced):
        g, labels = cells()
        order = torch.randperm(len(g), generator=torch.Generator().manual_seed(1))
        whole = sums_of((g, labels), balanced=balanced)
        parts = sums_of(*zip(g[order].split(7), labels[order].split(7), strict=True), balanced=balanced)
        torch.testing.assert_close(whole.weight(1.0), parts.weight(1.0), rtol=0, atol=1e-12)

    @KINDS
    def test_do_not_depend_on_how_many_columns_are_computed_at_once(self, balanced, monkeypatch):
        whole = sums_of(cells(), balanced=balanced)
        monkeypatch.setattr(ridge, "BLOCK", 7)
        parts = sums_of(cells(), balanced=balanced)
        for one, other in zip(whole.grams, parts.grams, strict=True):
            torch.testing.assert_close(symmetric(one), symmetric(other), rtol=0, atol=1e-12)

    @KINDS
    def test_of_two_machines_add(self, balanced):
        one, other = cells(seed=1), cells(seed=2)
        both = sums_of(one, balanced=balanced) + sums_of(other, balanced=balanced)
        torch.testing.assert_close(both.weight(1.0), sums_of(one, other, balanced=balanced).weight(1.0), rtol=0, atol=1e-12)

    @KINDS
    def test_of_machines_with_other_classes_add_by_name(self, balanced):
        one, other = cells(seed=1, classes=3), cells(seed=2, classes=3)
        renumbered = other[1].where(other[1] != 2, 3).where(other[1] != 1, 2)  # dog and fox
        both = sums_of(one, balanced=balanced, names=NAMES[:3]) + sums_of(
            other, balanced=balanced, names=("background", *NAMES[2:])
        )
        assert both.classes == NAMES
        expected = sums_of(one, (other[0], renumbered), balanced=balanced)
        torch.testing.assert_close(both.weight(1.0), expected.weight(1.0), rtol=0, atol=1e-12)

    @KINDS
    def test_of_ranks_are_those_of_one_process(self, balanced):
        before, (g, labels) = sums_of(cells(seed=1), balanced=balanced), cells(seed=2)
        barrier, posted = Barrier(2), {}

        def summed(rank, tensor):
            barrier.wait()
            posted[rank] = tensor
            barrier.wait()
            return posted[0] + posted[1]

        def one_rank(rank):
            ranks = Ranks(sum=partial(summed, rank), rank=rank, count=2)
            own = copy.deepcopy(before).share(ranks)
            own.add(g[rank::2], labels[rank::2])
            return own.over_ranks(ranks)

        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(one_rank, range(2)))
        before.add(g, labels)
        for sums in both:
            assert torch.equal(sums.counts, before.counts)
            torch.testing.assert_close(sums.weight(1.0), before.weight(1.0), rtol=0, atol=1e-12)

    def test_a_column_that_comes_later_is_as_if_it_had_been_there(self):
        first, last = cells(seed=1, classes=3), cells(seed=2)
        grown = sums_of(first, names=NAMES[:3]).grown(NAMES[3:])
        grown.add(*last)
        torch.testing.assert_close(grown.weight(1.0), sums_of(first, last).weight(1.0), rtol=0, atol=1e-12)

    def test_cells_of_other_classes_change_a_column_through_the_gram_matrix_alone(self):
        sums = sums_of(cells(seed=1))
        totals = sums.totals.clone()
        g, labels = cells(seed=2)
        sums.add(g, labels.where(labels == 2, 255))
        changed = (sums.totals != totals).any(dim=1)
        assert changed.tolist() == [False, False, True, False]

    def test_a_start_of_a_column_never_fades(self):
        g, labels = cells()
        start = torch.randn(4, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        sums = RidgeSums.empty(FEATURES).grown(NAMES, start, gamma=2.0)
        sums.add(g, labels)
        expected = (
            sums_of((g, labels)).weight(2.0)
            + 2.0 * torch.linalg.solve(symmetric(sums.grams[0]) + 2.0 * torch.eye(20), start.T).T
        )
        torch.testing.assert_close(sums.weight(2.0), expected, rtol=0, atol=1e-12)
        with pytest.raises(ContsegError, match="class-balanced sums start at 0"):
            RidgeSums.empty(FEATURES, balanced=True).grown(NAMES, start, gamma=2.0)

    def test_a_class_has_the_same_weight_however_often_it_is_seen(self):
        g, labels = cells()
        cats = labels == 1
        once = sums_of((g, labels), balanced=True).weight(0.01)
        thrice = sums_of((g, labels), (g[cats], labels[cats]), (g[cats], labels[cats]), balanced=True).weight(0.01)
        torch.testing.assert_close(once, thrice, rtol=0, atol=1e-11)
        assert not torch.allclose(sums_of((g, labels)).weight(0.01), once)

    @KINDS
    def test_a_class_without_cells_is_0_everywhere(self, balanced):
        g, labels = cells(classes=3)
        weight = sums_of((g, labels), balanced=balanced).weight(1.0)
        assert not weight[3].any()
        assert weight[:3].any(dim=1).all()

    def test_without_any_cells_all_columns_are_0(self):
        assert not sums_of().weight(1.0).any()

    def test_a_ridge_of_0_is_refused(self):
        with pytest.raises(ContsegError, match="gamma: must be above 0"):
            sums_of(cells()).weight(0.0)

    def test_of_other_features_do_not_add(self):
        other = RandomFeatures.drawn("head", 6, expansion=20, draw="uniform")
        with pytest.raises(ContsegError, match="sums of CFSSeg: their features differ"):
            sums_of(cells()) + RidgeSums.empty(other).grown(NAMES)


class TestStatistics:
    @KINDS
    def test_of_a_file_are_the_same(self, balanced):
        sums = sums_of(cells(), balanced=balanced)
        again = RidgeSums.from_state(sums.state_dict())
        assert again.classes == sums.classes
        assert again.features.same_as(sums.features)
        assert torch.equal(again.weight(1.0), sums.weight(1.0))

    def test_of_a_file_can_be_added_to_without_changing_it(self):
        state = sums_of(cells()).state_dict()
        kept = {name: value.clone() for name, value in state.items()}
        RidgeSums.from_state(state).add(*cells(seed=1))
        assert all(torch.equal(value, kept[name]) for name, value in state.items())

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda state: state.pop("grams"), "lack 'grams'"),
            (lambda state: state.update(counts=state["counts"][1:]), r"counts has the shape \(3,\), expected \(4,\)"),
            (lambda state: state.update(totals=state["totals"].float()), "other values than finite ones in float64"),
            (lambda state: state["grams"].fill_(torch.nan), "grams contains other values than finite"),
            (lambda state: state.update(ridge=torch.zeros(3, dtype=torch.uint8)), "cannot be read"),
        ],
    )
    def test_that_are_damaged_are_told_in_one_line(self, change, told):
        state = sums_of(cells()).state_dict()
        change(state)
        with pytest.raises(ContsegError, match=rf"statistics of CFSSeg: .*{told}") as caught:
            RidgeSums.from_state(state)
        assert "\n" not in str(caught.value)


class TestFeatures:
    @pytest.mark.parametrize("draw", ["normal", "uniform"])
    def test_both_draws_have_the_deviation_of_the_published_one(self, draw):
        matrix, bias = RandomFeatures.drawn("head", 64, expansion=4096, draw=draw).convolution
        assert matrix.std().item() == pytest.approx((1 / 192) ** 0.5, rel=0.01)
        assert not bias.any()
        assert (matrix.abs().max() <= 1 / 8) == (draw == "uniform")

    def test_are_those_of_the_network(self):
        assert torch.equal(FEATURES.convolution[0], FEATURES.convolution[0].float().double())

    def test_without_an_expansion_are_the_map(self):
        g = torch.rand(5, 6)
        assert torch.equal(RandomFeatures.drawn("head", 6)(g), g)

    def test_of_another_seed_differ(self):
        assert not RandomFeatures.drawn("head", 6, expansion=20, seed=1).same_as(FEATURES)


def lesson_of(method, old=3):
    """A method in a later step of a tiny network, with the sums of the classes before."""
    torch.manual_seed(0)
    options = NetworkOptions(backbone={"name": "resnet18", "width": 4}, head={"name": "deeplabv3-dkd", "width": 6})
    student = Segmenter(options, [old])
    step = Step.of(NAMES[:old], 0)
    context = StepContext.for_loop(student, None, step, method, [images(0, range(old))])
    method.after_step(context)
    student.grow(1, "random")
    return StepContext.for_loop(student, None, Step.of(NAMES, old), method, [images(1, (0, 3))])


def images(seed, known) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (3, 8, 8), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels = labels.where(torch.isin(labels, torch.tensor([*known])), 0)
    annotated = torch.zeros(3, 4, dtype=torch.bool)
    annotated[:, max(known)] = True
    pixels = torch.randint(0, 256, (3, 3, 64, 64), generator=generator, dtype=torch.uint8)
    return Batch(pixels, labels, ("a", "b", "c"), annotated)


class TestAStep:
    def test_writes_the_solution_into_the_network(self):
        method = make_method("cfsseg", expansion=20)
        context = lesson_of(method)
        method.after_step(context)
        sums, student = RidgeSums.from_state(method.state), context.student
        assert student.options.decision == "sigmoid"
        assert student.widths == [3, 1]
        output = student.eval()(student.normalise(images(2, (0, 3)).images), taps=("head",))
        g = output.features["head"].movedim(1, -1).flatten(0, 2).double()
        expected = sums.features(g) @ sums.weight(1.0).T
        found = output.logits.movedim(1, -1).flatten(0, 2).double()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)

    def test_leaves_the_rest_of_the_network(self):
        method = make_method("cfsseg", expansion=20)
        context = lesson_of(method)
        before = {name: value.clone() for name, value in context.student.state_dict().items()}
        method.after_step(context)
        after = context.student.state_dict()
        trunk = [name for name in before if not name.startswith("classifier.")]
        assert all(torch.equal(before[name], after[name]) for name in trunk)

    def test_a_step_without_the_sums_of_the_classes_before_is_told(self):
        method = make_method("cfsseg", expansion=20)
        context = lesson_of(method)
        method.state.clear()
        with pytest.raises(ContsegError, match="adds to the sums of earlier steps, and there are none; begin") as caught:
            method.before_step(context)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("names", "told"),
        [
            (("background", "dog", "cat"), r"has 'dog' as class 1, which is 'cat' here"),
            (("background", "cat"), r"has 2 classes, and 3 are old"),
        ],
    )
    def test_sums_of_another_class_order_are_told(self, names, told):
        method = make_method("cfsseg", expansion=20)
        context = lesson_of(method)
        changed = RidgeSums.empty(RidgeSums.from_state(method.state).features).grown(names)
        method.state.update(changed.state_dict())
        with pytest.raises(ContsegError, match=rf"statistics of CFSSeg: another class order \({told}\)") as caught:
            method.before_step(context)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"expansion": 8}, r"method\.expansion=20"),
            ({"seed": 1}, r"method\.seed=0"),
            ({"draw": "uniform"}, r"method\.draw=normal"),
            ({"weighting": "class-balanced"}, r"method\.weighting=pixels"),
        ],
    )
    def test_sums_of_another_expansion_are_told(self, changes, told):
        method = make_method("cfsseg", expansion=20)
        context = lesson_of(method)
        other = make_method("cfsseg", **({"expansion": 20} | changes))
        other.load_state_dict(method.state_dict())
        with pytest.raises(ContsegError, match=rf"statistics of CFSSeg: made with {told}; use the same"):
            other.before_step(context)


class TestPseudoLabels:
    SCORES = torch.tensor([[0.0, 1.0], [0.5, 0.0]])  # sigmoid 0.62 of cat in the left, 0.73 of background in the right cell

    def labelled(self, step_index=1, annotated=(), **changes) -> list[int]:
        method = make_method("cfsseg", expansion=4, **changes)
        scores = self.SCORES.view(1, 2, 1, 2)
        marked = torch.zeros(1, 3, dtype=torch.bool)
        marked[:, list(annotated)] = True
        batch = Batch(torch.empty(0), torch.tensor([[[0, 0]]]), ("a",), marked)
        step = Step.of(NAMES[:3], 2, index=step_index)
        return method.pseudo_labelled(batch, SegmenterOutput(scores), step).labels.flatten().tolist()

    def test_are_old_classes_with_a_high_score(self):
        assert self.labelled() == [1, 0]
        assert self.labelled(threshold=0.7) == [0, 0]

    def test_are_none_where_the_class_was_annotated(self):
        assert self.labelled(annotated=(1,)) == [0, 0]

    def test_can_be_left_out(self):
        assert self.labelled(threshold=None) == [0, 0]

    def test_in_the_released_code_step_1_has_none(self):
        assert self.labelled(variant="released", threshold=0.6) == [0, 0]
        assert self.labelled(variant="released", threshold=0.6, step_index=2) == [1, 0]


class TestReleased:
    def test_columns_start_at_random_and_the_same_in_every_run(self):
        found = []
        for _ in range(2):
            method = make_method("cfsseg", variant="released", expansion=20)
            method.after_step(lesson_of(method))
            found.append(RidgeSums.from_state(method.state))
        assert found[0].starts.any(dim=1).all()
        assert torch.equal(found[0].starts, found[1].starts)
        assert not RidgeSums.from_state(self.paper().state).starts.any()

    def paper(self):
        method = make_method("cfsseg", expansion=20)
        method.after_step(lesson_of(method))
        return method

    def test_a_class_balanced_form_is_refused(self):
        network = NetworkOptions(backbone="resnet18")
        method = make_method("cfsseg", variant="released", weighting="class-balanced")
        with pytest.raises(ContsegError, match=r"method\.weighting: .* set method\.variant=paper"):
            method.check(network, [])
        make_method("cfsseg", weighting="class-balanced").check(network, [])


QUICK = ("training.epochs=1", "method.expansion=16")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("whole") / "run", tiny_recipe("cfsseg", *QUICK))


class TestARun:
    def test_has_updates_in_step_0_only(self, whole):
        assert {line["step"] for line in lines(whole, "epoch")} == {0}
        assert len(whole.confusions()[1]) == 11

    def test_predicts_new_classes_if_every_class_has_the_same_weight(self, tmp_path):
        run = learn(tmp_path / "run", tiny_recipe("cfsseg", *QUICK, "method.weighting=class-balanced"))
        assert run.confusions()[1].diagonal()[6:].any()

    def test_changes_no_weight_of_backbone_and_head_after_step_0(self, whole):
        first, last = weights(whole, 0), weights(whole, 1)
        trunk = [name for name in first if not name.startswith("classifier.")]
        assert all(torch.equal(first[name], last[name]) for name in trunk)

    def test_continues_after_an_interruption(self, whole, tmp_path):
        interrupted(tmp_path / "run", tiny_recipe("cfsseg", *QUICK), "step_finished", 1)
        run = learn(tmp_path / "run", tiny_recipe("cfsseg", *QUICK))
        assert same(weights(run), weights(whole))
        assert lines(run) == lines(whole)

    @pytest.mark.parametrize("override", ["method.variant=released", "method.expansion=0"])
    def test_has_options(self, tmp_path, override):
        run = learn(tmp_path / "run", tiny_recipe("cfsseg", *QUICK, override))
        assert len(run.confusions()[1]) == 11

    @pytest.mark.parametrize("setting", ["disjoint", "sequential"])
    def test_by_class(self, tmp_path, setting):
        run = learn(tmp_path / "run", tiny_recipe("cfsseg", *QUICK, f"scenario.setting={setting}"))
        assert RidgeSums.from_state(run.load_state(1).method).counts.shape == (11,)

    def test_replay_memory_adds_nothing_to_the_sums(self, whole, tmp_path):
        run = learn(tmp_path / "run", tiny_recipe("cfsseg", *QUICK, "scenario.memory={size: 6, mix: sampling}"))
        assert same(weights(run, 1), weights(whole, 1))

    def test_from_its_segmenter_continues_with_its_sums(self, whole, tmp_path):
        start = f"start_from={str(whole.segmenter_path(0))!r}"
        again = learn(tmp_path / "again", tiny_recipe("cfsseg", *QUICK, start), reporter=Watching())
        assert same(weights(again), weights(whole))

    def test_can_be_given_away_with_its_sums(self, whole, tmp_path):
        segmenter, table, *_ = load_segmenter(whole.segmenter_path(1))
        folder = save_pretrained(tmp_path / "given", segmenter, table, statistics=whole.load_state(1).method)
        again, _ = load_pretrained(folder)
        picture = torch.randn(1, 3, 32, 32)
        assert torch.equal(again(picture).logits, segmenter(picture).logits)
        assert RidgeSums.from_state(load_statistics(folder)).classes == table.names
