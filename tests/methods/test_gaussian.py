"""The Gaussian head: what its sums, its read-out and its segmenter promise."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from threading import Barrier

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.interop.pretrained import load_pretrained, load_statistics, save_pretrained
from contseg.methods.gaussian.beside import columns_beside
from contseg.methods.gaussian.centres import background_centres
from contseg.methods.gaussian.choice import best_choice
from contseg.methods.gaussian.features import Features
from contseg.methods.gaussian.gather import cell_labels, gather, labelled_cells, sums_of_confident
from contseg.methods.gaussian.readout import apply, readout
from contseg.methods.gaussian.sums import GaussianSums
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.ranks import Ranks
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step

NAMES = ("background", "cat", "dog", "fox")
TABLE = ClassTable.of(NAMES)
WHOLE = ClassTable.of(NAMES, "none")
SIZE = 64


@pytest.fixture
def segmenter():
    """In float64, with an output for each class; the cells are 8 x 8 per image."""
    torch.manual_seed(0)
    options = NetworkOptions(backbone={"name": "resnet18", "width": 8, "output_stride": 8}, head="fcn")
    return Segmenter(options, [3, 1]).double().eval().requires_grad_(False)


def images(count=6, seed=0, known=(0, 1, 2, 3)) -> Batch:
    """Images of 16-pixel squares whose colour depends on their class; labels outside `known` are background."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count, SIZE // 16, SIZE // 16), generator=generator)
    labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    noise = torch.randint(0, 60, (count, 3, SIZE, SIZE), generator=generator)
    colours = torch.tensor([[0, 0, 0], [190, 0, 60], [0, 190, 120], [90, 90, 190]])
    pixels = (colours[labels].movedim(-1, 1) + noise).to(torch.uint8)
    kept = torch.isin(labels, torch.tensor(known))
    names = tuple(f"{seed}-{number}" for number in range(count))
    return Batch(pixels, labels.where(kept, 0), names, torch.ones(count, 4, dtype=torch.bool))


def parts(batch: Batch, *sizes: int) -> list[Batch]:
    """The images in batches of these sizes."""
    starts = np.cumsum([0, *sizes])
    return [
        replace(
            batch, images=batch.images[a:b], labels=batch.labels[a:b], names=batch.names[a:b], annotated=batch.annotated[a:b]
        )
        for a, b in pairwise(starts)
    ]


def assert_same(one: GaussianSums, other: GaussianSums, tolerance: float = 1e-12) -> None:
    """Equal up to rounding, relative to the largest number of each tensor; classes may be in any order."""
    assert set(one.classes) == set(other.classes)
    order = sorted(one.classes)
    pairs = [*zip(one.only(order), other.only(order), strict=True), (one.covariance, other.covariance)]
    pairs += [(each.sum(dim=0), again.sum(dim=0)) for each, again in [
        (one.background_counts, other.background_counts), (one.background_totals, other.background_totals)
    ]]  # fmt: skip
    for each, again in pairs:
        assert each.shape == again.shape
        assert not each.numel() or (each - again).abs().max() <= tolerance * max(1.0, float(again.abs().max()))


@pytest.fixture(params=[0, 24], ids=["map", "expanded"])
def features(request, segmenter):
    return Features.measured(segmenter, [images()], expansion=request.param)


class TestFeatures:
    def test_are_standardised(self, segmenter):
        features = Features.measured(segmenter, [images()])
        phi = torch.cat([phi for phi, _ in labelled_cells(segmenter, [images()], features)])
        assert phi.mean(dim=0).abs().max() < 1e-12
        deviations = phi.std(dim=0, unbiased=False)
        assert ((deviations - 1).abs() < 1e-12).logical_or(deviations == 0).all()

    def test_do_not_depend_on_batches(self, segmenter):
        one, many = (Features.measured(segmenter, parts(images(), *sizes)) for sizes in ((6,), (1, 3, 2)))
        assert (one.mean - many.mean).abs().max() < 1e-12
        assert (one.std - many.std).abs().max() < 1e-12

    def test_of_one_seed_are_always_the_same(self):
        one = Features("head", torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64), 3, seed=1)
        assert one.convolution[0].flatten().tolist() == pytest.approx(
            [1.148586, -0.432577, -0.373476, -0.758701, 0.611936, -1.627434], abs=1e-5
        )
        assert not torch.equal(one.convolution[0], replace(one, seed=2).convolution[0])

    def test_have_the_mean_of_a_normal_map_at_their_origin(self):
        features = Features("head", torch.zeros(6).double(), torch.ones(6).double(), 5)
        drawn = torch.randn(200_000, 6, generator=torch.Generator().manual_seed(0)).double()
        assert (features(drawn).mean(dim=0) - features.origin).abs().max() < 0.01


class TestDiscriminants:
    def test_equal_those_of_scikit_learn(self, segmenter):
        features = Features.measured(segmenter, [images()])
        sums = gather(segmenter, [images()], WHOLE, features)
        ours = readout(sums, WHOLE, rho=0.05)
        phi, labels = (
            torch.cat(each).numpy() for each in zip(*labelled_cells(segmenter, [images()], features), strict=True)
        )

        class Shrunk(EmpiricalCovariance):
            def fit(self, points):
                super().fit(points)
                self.covariance_ += 0.05 * np.trace(self.covariance_) / len(self.covariance_) * np.eye(len(self.covariance_))

        theirs = LinearDiscriminantAnalysis("lsqr", covariance_estimator=Shrunk(), priors=[0.25] * 4).fit(phi, labels)
        scale = np.abs(theirs.coef_).max()
        assert np.abs(ours.weight.numpy() - theirs.coef_).max() < 1e-9 * scale
        biases = theirs.intercept_ - np.log(0.25)
        assert np.abs(ours.bias.numpy() - biases).max() < 1e-9 * max(1, np.abs(biases).max())

    @pytest.mark.parametrize("background", ["mean", "centres", "distance"])
    def test_are_what_the_segmenter_computes(self, segmenter, features, background):
        sums = gather(segmenter, [images()], TABLE, features)
        options = {
            "mean": {},
            "centres": {"centres": sums.means.mean(dim=0) + torch.eye(features.width).double()[:3]},
            "distance": {"quantile": 0.9},
        }[background]
        found = apply(segmenter, sums, TABLE, **options)
        output = segmenter(segmenter.normalise(images().images))
        phi = torch.cat([phi for phi, _ in labelled_cells(segmenter, [images()], features)])
        expected = found.scores(phi)
        logits = output.logits.movedim(1, -1).flatten(0, 2)
        assert (logits - expected).abs().max() < 1e-9 * expected.abs().max()

    def test_put_background_where_every_class_is_far(self, segmenter, features):
        sums = gather(segmenter, [images()], TABLE, features)
        found = readout(sums, TABLE, quantile=0.9)
        phi = torch.cat([phi for phi, _ in labelled_cells(segmenter, [images()], features)])
        scores = found.scores(phi)
        shrunk = sums.covariance + 0.01 * sums.covariance.trace() / features.width * torch.eye(features.width).double()
        apart = phi[:, None] - sums.means
        distances = torch.einsum("nki,ij,nkj->nk", apart, torch.linalg.inv(shrunk), apart)
        assert torch.allclose(2 * (scores[:, :1] - scores[:, 1:]), distances + 2 * found.bias[0], rtol=1e-8, atol=1e-6)
        assert found.bias[0] < 0

    def test_prefer_frequent_classes_with_their_prior(self, segmenter, features):
        sums = gather(segmenter, [images()], TABLE, features)
        equal, counted = (readout(sums, TABLE, prior=prior) for prior in ("equal", "counts"))
        wanted = torch.cat([sums.background_counts, sums.counts]).log()
        assert torch.equal(counted.weight, equal.weight)
        assert torch.allclose(counted.bias - equal.bias, wanted)

    def test_never_predict_a_class_without_cells(self, segmenter, features):
        sums = gather(segmenter, [images(known=(1, 2))], TABLE, features)
        apply(segmenter, sums, TABLE)
        assert (segmenter(segmenter.normalise(images().images)).logits.argmax(dim=1) != 3).all()

    def test_need_a_positive_rho(self, segmenter, features):
        with pytest.raises(ContsegError, match=r"rho: must be above 0 \(got 0\)"):
            readout(gather(segmenter, [images()], TABLE, features), TABLE, rho=0.0)


class TestSums:
    """To 1e-12 of the largest number."""

    def sums(self, segmenter, batches, features, **options):
        return gather(segmenter, batches, TABLE, features, **options)

    @pytest.mark.parametrize("sizes", [(1,) * 6, (4, 2), (2, 2, 2)])
    def test_do_not_depend_on_batches(self, segmenter, features, sizes):
        whole = self.sums(segmenter, [images()], features)
        assert_same(self.sums(segmenter, parts(images(), *sizes), features), whole)

    def test_do_not_depend_on_the_order_of_images(self, segmenter, features):
        singles = parts(images(), *(1,) * 6)
        assert_same(self.sums(segmenter, singles[::-1], features), self.sums(segmenter, singles, features))

    def test_of_parts_are_those_of_the_whole(self, segmenter, features):
        one, other = (self.sums(segmenter, [part], features) for part in parts(images(), 2, 4))
        assert_same(one + other, self.sums(segmenter, [images()], features))
        assert_same(self.sums(segmenter, [images()], features) - other, one, 1e-10)

    @pytest.mark.parametrize("known", [((1, 2), (3,)), ((1,), (2, 3))], ids=["2-1", "1-2"])
    def test_do_not_depend_on_the_order_of_steps(self, segmenter, features, known):
        steps = [
            self.sums(segmenter, [images(seed=seed, known=(0, *new))], features, learned=[NAMES[number] for number in new])
            for seed, new in enumerate(known)
        ]
        forward, backward = steps[0] + steps[1], steps[1] + steps[0]
        assert_same(forward, backward)
        one, other = (readout(sums, TABLE) for sums in (forward, backward))
        assert (one.weight - other.weight).abs().max() < 1e-12 * one.weight.abs().max()

    def test_of_ranks_are_those_of_one_process(self, segmenter, features):
        barrier, posted = Barrier(2), {}

        def summed(rank, tensor):
            barrier.wait()
            posted[rank] = tensor
            barrier.wait()
            return posted[0] + posted[1]

        def one_rank(rank):
            ranks = Ranks(sum=partial(summed, rank), rank=rank, count=2)
            return self.sums(copy.deepcopy(segmenter), [parts(images(), 2, 4)[rank]], features, ranks=ranks)

        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(one_rank, range(2)))
        for sums in both:
            assert_same(sums, self.sums(segmenter, [images()], features))

    def test_without_a_class_are_as_if_it_had_never_been_seen(self, segmenter, features):
        old = self.sums(segmenter, [images(known=(0, 1, 2))], features, learned=["cat", "dog"])
        both = old + self.sums(segmenter, [images(seed=1, known=(0, 3))], features, learned=["fox"])
        again = both.without("fox")
        assert again.steps == old.steps
        assert_same(again, old)
        with pytest.raises(ContsegError, match="class 'cow': not part of the sums, which have cat, dog, fox"):
            both.without("cow")

    def test_are_restored_from_their_state(self, segmenter, features):
        sums = self.sums(segmenter, [images()], features)
        for each in (sums, sums.freeze()):
            again = GaussianSums.from_state(each.state_dict())
            assert (again.classes, again.steps) == (each.classes, each.steps)
            assert again.features.same_as(features)
            assert_same(again, each, 0)

    def test_of_other_features_are_refused(self, segmenter, features):
        sums = self.sums(segmenter, [images()], features)
        with pytest.raises(ContsegError, match="their features differ"):
            sums + self.sums(segmenter, [images()], replace(features, mean=features.mean + 1))

    def test_of_damaged_statistics_are_refused(self, segmenter, features):
        state = self.sums(segmenter, [images()], features).state_dict()
        with pytest.raises(ContsegError, match="statistics of a Gaussian head: lack 'totals'"):
            GaussianSums.from_state({name: value for name, value in state.items() if name != "totals"})
        with pytest.raises(ContsegError, match="statistics of a Gaussian head: cannot be read"):
            GaussianSums.from_state(state | {"scatters": state["scatters"][:, :5]})
        for harm in (lambda value: value * math.nan, lambda value: value.half(), lambda value: value[:0]):
            for name in ("counts", "totals", "scatters", "mean"):
                with pytest.raises(ContsegError, match="statistics of a Gaussian head: cannot be read"):
                    GaussianSums.from_state(state | {name: harm(state[name])})
        for text in (b"3", b"[]", b"{", b'{"tap": 1, "expansion": [], "seed": 0, "classes": 2, "steps": 3}'):
            with pytest.raises(ContsegError, match="statistics of a Gaussian head: "):
                GaussianSums.from_state(state | {"description": torch.tensor(list(text), dtype=torch.uint8)})


class TestASegmenter:
    def test_keeps_every_weight_but_the_classifier(self, segmenter, features):
        before = copy.deepcopy(segmenter.state_dict())
        apply(segmenter, gather(segmenter, [images()], TABLE, features), TABLE)
        after = segmenter.state_dict()
        trunk = [name for name in before if not name.startswith("classifier.")]
        assert all(torch.equal(before[name], after[name]) for name in trunk)
        assert len(trunk) > 50

    def test_keeps_old_scores_bit_equal_with_a_frozen_covariance(self, segmenter, features):
        old = gather(segmenter, [images(known=(0, 1, 2))], TABLE, features, learned=["cat", "dog"]).freeze()
        new = gather(segmenter, [images(seed=1, known=(0, 3))], TABLE, features, learned=["fox"], scatter=False)
        logits = []
        for sums in (old, old + new):
            apply(segmenter, sums, TABLE)
            logits.append(segmenter(segmenter.normalise(images(seed=2).images)).logits)
        assert torch.equal(logits[0][:, 1:3], logits[1][:, 1:3])
        assert not torch.equal(logits[0][:, 3], logits[1][:, 3])

    @pytest.mark.parametrize(("expansion", "share"), [(0, 0.7), (256, 0.6)])
    def test_learns_squares_of_every_class(self, segmenter, expansion, share):
        features = Features.measured(segmenter, [images()], expansion=expansion)
        apply(segmenter, gather(segmenter, [images(12)], TABLE, features), TABLE)
        unseen = images(4, seed=9)
        predicted = segmenter(segmenter.normalise(unseen.images)).logits.argmax(dim=1)
        assert (predicted == cell_labels(unseen.labels, (8, 8))).double().mean() > share

    @pytest.mark.parametrize("tap", ["stage2", "stage4", "head"])
    def test_reads_any_map(self, segmenter, tap):
        features = Features.measured(segmenter, [images()], tap, expansion=16)
        apply(segmenter, gather(segmenter, [images()], TABLE, features), TABLE)
        output = segmenter(segmenter.normalise(images().images), taps=(tap,))
        assert output.logits.shape[2:] == output.features[tap].shape[2:]

    @pytest.mark.parametrize("quantile", [None, 0.9])
    def test_is_saved_with_its_statistics(self, segmenter, features, tmp_path, quantile):
        segmenter = segmenter.float()
        sums = gather(segmenter, [images()], TABLE, features)
        apply(segmenter, sums, TABLE, quantile=quantile)
        folder = save_pretrained(tmp_path / "model", segmenter, TABLE, statistics=sums.state_dict())
        again, classes = load_pretrained(folder)
        inputs = segmenter.normalise(images().images)
        assert torch.equal(again(inputs).logits, segmenter(inputs).logits)
        assert classes.names == NAMES
        assert_same(GaussianSums.from_state(load_statistics(folder)), sums, 0)

    def test_has_statistics_that_nobody_changed(self, segmenter, features, tmp_path):
        sums = gather(segmenter, [images()], TABLE, features)
        folder = save_pretrained(tmp_path / "model", segmenter.float(), TABLE, statistics=sums.state_dict())
        path = folder / "statistics.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ContsegError, match=r"statistics\.safetensors: SHA-256 is .* fetch it again"):
            load_statistics(folder)
        path.unlink()
        with pytest.raises(ContsegError, match=r"statistics\.safetensors: not found, and segmenter\.json names it"):
            load_statistics(folder)
        save_pretrained(folder, segmenter, TABLE)
        assert load_statistics(folder) == {}


class TestCells:
    @pytest.mark.parametrize("size", [(3, 5), (8, 8), (7, 2)])
    def test_of_a_uniform_image_have_its_label(self, size):
        for rule in ("centre", "majority"):
            assert (cell_labels(torch.full((2, 21, 34), 7), size, rule) == 7).all()

    def test_of_two_classes_have_no_majority_below_nine_tenths(self):
        labels = torch.zeros(1, 10, 10, dtype=torch.int64)
        labels[:, :1] = 3
        assert cell_labels(labels, (1, 1), "majority").item() == 0
        labels[:, 1, 0] = 3
        assert cell_labels(labels, (1, 1), "majority").item() == 255

    def test_are_not_used_where_they_are_ignored(self, segmenter):
        features, batch = Features.measured(segmenter, [images()]), images()
        batch.labels[:3] = 255
        assert_same(
            gather(segmenter, [batch], TABLE, features), gather(segmenter, parts(images(), 3, 3)[1:], TABLE, features)
        )


class TestChoices:
    def step(self):
        return Step.of(TABLE, old=3)

    def test_take_the_rho_with_the_best_iou_on_held_out_cells(self, segmenter):
        features = Features.measured(segmenter, [images()], expansion=64)
        sums = gather(segmenter, [images(1)], TABLE, features)
        cells = list(labelled_cells(segmenter, [images(6, seed=5)], features))

        def iou(rho):
            found = readout(sums, TABLE, rho=rho)
            predicted, labels = (
                torch.cat(each) for each in zip(*[(found.scores(phi).argmax(1), y) for phi, y in cells], strict=True)
            )
            return ((predicted == 3) & (labels == 3)).sum() / ((predicted == 3) | (labels == 3)).sum()

        rhos = (1e-6, 0.01, 1.0)
        best = best_choice(cells, sums, self.step(), [(rho, None) for rho in rhos])
        assert best == (max(rhos, key=iou), None)
        assert iou(best[0]) > min(map(iou, rhos))

    def test_take_the_first_without_cells(self, segmenter, features):
        sums = gather(segmenter, [images()], TABLE, features)
        assert best_choice([], sums, self.step(), [(0.1, None), (0.01, None)]) == (0.1, None)

    def test_put_centres_on_background_that_no_class_claims(self, segmenter, features):
        sums = gather(segmenter, [images()], TABLE, features)
        claimed = readout(sums, TABLE)
        centres = background_centres(labelled_cells(segmenter, [images()], features), claimed, 4, seed=0)
        assert centres.shape == (4, features.width)
        phi, labels = (torch.cat(each) for each in zip(*labelled_cells(segmenter, [images()], features), strict=True))
        free = phi[(labels == 0) & (claimed.scores(phi).argmax(dim=1) == 0)]
        assert torch.cdist(centres, free).amin(dim=1).max() < torch.cdist(free.mean(dim=0)[None], free).max()
        assert background_centres([], claimed, 4, seed=0).shape == (0, features.width)


class TestASegmenterWithoutSums:
    """A softmax model of three classes learns a fourth."""

    @pytest.fixture
    def trained(self, segmenter):
        """Of background, cat and dog: its weights are computed, then sharpened to be confident."""
        features = Features.measured(segmenter, [images(12)])
        first = Segmenter(segmenter.options, [3]).double().eval()
        first.load_state_dict({name: value for name, value in segmenter.state_dict().items() if "steps.1" not in name})
        table = ClassTable.of(NAMES[:3])
        apply(first, gather(first, [images(12, known=(0, 1, 2))], table, features), table)
        return first, table, features

    def test_gives_sums_of_its_confident_predictions(self, trained):
        first, table, features = trained
        unlabelled = images(8, seed=3).relabelled(torch.full((8, SIZE, SIZE), 255))
        sums = sums_of_confident(first, [unlabelled], table, features)
        probabilities = first.scores(first(first.normalise(unlabelled.images)).logits)
        best, predicted = probabilities.max(dim=1)
        assert sums.counts.tolist() == [((predicted == number) & (best >= 0.9)).sum() for number in (1, 2)]
        assert sums.counts.min() > 0
        fewer = sums_of_confident(first, [unlabelled], table, features, p=0.9999)
        assert (fewer.counts <= sums.counts).all()

    def test_does_not_count_what_is_labelled_as_another_class(self, trained):
        first, table, features = trained
        other = images(8, seed=3).relabelled(torch.full((8, SIZE, SIZE), 3))
        assert sums_of_confident(first, [other], table, features).counts.tolist() == [0, 0]

    def test_gets_columns_next_to_its_head_which_stays(self, trained):
        first, _, features = trained
        grown = copy.deepcopy(first)
        grown.grow(1, "random")
        batches = [images(8, seed=3, known=(0, 3))]
        offsets = columns_beside(grown, batches, TABLE, features, lost=0.01)
        inputs = first.normalise(batches[0].images)
        before, after = first(inputs).logits, grown(inputs).logits
        assert torch.equal(after[:, :3], before)
        labels, old, new = cell_labels(batches[0].labels, (8, 8)), before.argmax(dim=1), after.argmax(dim=1)
        assert ((new == 3) & (labels == 3)).sum() > 0.5 * (labels == 3).sum()
        outside = (old > 0) & (labels != 3)
        assert (outside & (new == 3)).sum() <= 0.01 * outside.sum()
        assert offsets.shape == (1,)

    @pytest.mark.parametrize("scale", [1e-3, 1e3])
    def test_columns_win_their_cells_whatever_the_scale_of_the_old_logits(self, trained, scale):
        first, _, features = trained
        batches = [images(8, seed=3, known=(0, 3))]
        first = copy.deepcopy(first).requires_grad_(False)
        first.classifier.steps[0].weight *= scale
        first.classifier.steps[0].bias *= scale
        grown = copy.deepcopy(first)
        grown.grow(1, "random")
        columns_beside(grown, batches, TABLE, features, lost=0.01)
        inputs = first.normalise(batches[0].images)
        old, new = first(inputs).logits.argmax(dim=1), grown(inputs).logits.argmax(dim=1)
        labels = cell_labels(batches[0].labels, (8, 8))
        assert ((new == 3) & (labels == 3)).any()
        outside = (old > 0) & (labels != 3)
        assert (outside & (new == 3)).sum() <= 0.01 * outside.sum()

    def test_needs_a_plain_head_for_columns(self, trained):
        first, _, features = trained
        with pytest.raises(ContsegError, match=r"without_sums: columns .* set method\.without_sums=confident"):
            columns_beside(first, [images()], TABLE, replace(features, expansion=3))
