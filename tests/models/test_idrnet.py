"""IDRNet's rules: who sends what to whom, what a deletion changes, and how all of it grows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from contseg.models.heads.idrnet.aggregation import aggregate, assign, class_means, relation_weights
from contseg.models.heads.idrnet.tables import FIRST_COUNT, Tables, label_statistics, label_sums
from tests.models.test_pairs import exchange, images, labels, make

QUICK = settings(max_examples=30, deadline=None)


def random_logits(seed, batch=2, classes=4, size=(5, 6)):
    return torch.randn(batch, classes, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestAssignment:
    @QUICK
    @given(st.integers(0, 999))
    def test_weights_of_a_class_add_up_to_one_in_each_image(self, seed):
        made = assign(random_logits(seed))
        total = torch.zeros(2, 4, dtype=torch.float64).scatter_add(1, made.classes, made.weights)
        assert torch.allclose(total, made.present.double())

    def test_classes_that_may_not_win_do_not(self):
        allowed = torch.tensor([True, False, True, False])
        assert set(assign(random_logits(0), allowed).classes.flatten().tolist()) <= {0, 2}

    def test_half_precision_logits_are_treated_in_float32(self):
        with torch.autocast("cpu", torch.bfloat16):
            assert assign(random_logits(0).bfloat16()).weights.dtype == torch.float32


class TestAggregation:
    @QUICK
    @given(st.integers(0, 999), st.booleans())
    def test_each_row_is_a_soft_max_over_the_present_classes(self, seed, drop):
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(5, 5, generator=generator, dtype=torch.float64)
        present = torch.rand(3, 5, generator=generator) < 0.6
        weights = relation_weights(table, present, drop)
        assert torch.allclose(weights.sum(dim=2), present.any(dim=1, keepdim=True).double().expand(3, 5))
        assert (weights.masked_select(~present.unsqueeze(1).expand(3, 5, 5)) == 0).all()

    def test_a_row_without_positive_relations_becomes_uniform(self):
        weights = relation_weights(torch.tensor([[-1.0, -2.0, 3.0]]).expand(3, 3), torch.tensor([[True, True, False]]), True)
        assert torch.allclose(weights, torch.tensor([0.5, 0.5, 0.0]).expand(1, 3, 3))

    def test_relations_that_are_not_positive_do_not_count(self):
        weights = relation_weights(torch.tensor([[1.0, -2.0], [0.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool), True)
        assert torch.equal(weights[0], torch.eye(2))

    def test_the_identity_gives_every_pixel_its_own_class(self):
        logits, features = random_logits(1), torch.randn(2, 3, 5, 6, dtype=torch.float64)
        made = assign(logits)
        means = class_means(features, made)
        found = aggregate(means, made, torch.eye(4, dtype=torch.float64), drop=True)
        expected = means.gather(1, made.classes.unsqueeze(2).expand(-1, -1, 3)).transpose(1, 2)
        assert torch.allclose(found, expected)

    def test_a_removed_class_neither_receives_nor_sends(self):
        logits = random_logits(2, batch=1)
        made = assign(logits)
        means = class_means(torch.randn(1, 3, 5, 6, dtype=torch.float64), made)
        table, removed = torch.rand(4, 4, dtype=torch.float64), torch.tensor([1])
        found = aggregate(means, made, table, False, removed)
        assert (found[0][:, made.classes[0] == 1] == 0).all()
        changed = means.clone()
        changed[:, 1] += 100
        assert torch.equal(found, aggregate(changed, made, table, False, removed))

    def test_removing_the_only_class_leaves_nothing(self):
        logits = torch.zeros(1, 3, 2, 2)
        logits[:, 2] = 1
        made = assign(logits)
        found = aggregate(class_means(torch.ones(1, 5, 2, 2), made), made, torch.eye(3), False, torch.tensor([2]))
        assert torch.equal(found, torch.zeros(1, 5, 4))


class TestTables:
    def test_growing_leaves_what_is_known_untouched(self):
        tables = Tables(3, 4)
        for name in ("mean", "variance", "memory", "counter"):
            getattr(tables, name).copy_(torch.randn_like(getattr(tables, name)))
        before = {name: value.clone() for name, value in tables.state_dict().items()}
        tables.grow(2)
        assert torch.equal(tables.mean[:3, :3], before["mean"])
        assert torch.equal(tables.variance[:3, :3], before["variance"])
        assert torch.equal(tables.memory[:3], before["memory"])
        assert torch.equal(tables.counter, torch.cat([before["counter"], torch.full((2,), FIRST_COUNT)]))
        assert torch.equal(tables.mean[3:, 3:], torch.eye(2))
        assert (tables.memory[3:] == 0).all()
        assert tables.seen.tolist() == [True, True, True, False, False]

    def test_tables_are_buffers_and_no_parameters(self):
        assert not list(Tables(3, 4).parameters())

    def test_classes_are_deleted_in_proportion_to_how_rarely_they_were(self):
        present = torch.tensor([[True, True, False, True]])
        generator, counts = torch.Generator().manual_seed(0), torch.zeros(4)
        for _ in range(3000):
            tables = Tables(4, 1)
            tables.counter = torch.tensor([1.0, 3.0, 1.0, 2.0])
            counts[tables.choose(present, generator)] += 1
        expected = torch.tensor([1, 1 / 3, 0, 1 / 2]) / (1 + 1 / 3 + 1 / 2)
        assert torch.allclose(counts / 3000, expected, atol=0.03)

    def test_each_image_sees_the_choices_before_it(self):
        tables = Tables(3, 1)
        chosen = tables.choose(torch.ones(3, 3, dtype=torch.bool), torch.Generator().manual_seed(0))
        assert sorted(chosen.tolist()) == [0, 1, 2], "a class that was never chosen is a million times as likely"
        assert torch.allclose(tables.counter, torch.full((3,), 1 + FIRST_COUNT))

    def test_the_choice_follows_its_generator(self):
        present = torch.ones(5, 8, dtype=torch.bool)
        one, same, other = (Tables(8, 1).choose(present, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)

    @QUICK
    @given(
        st.integers(0, 999), st.sampled_from([(5, 6), (10, 12), (13, 7), (4, 9)]), st.sampled_from([(3, 4), (6, 5), (1, 1)])
    )
    def test_sums_over_labels_are_those_of_the_resized_features(self, seed, size, source):
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(2, 3, *source, generator=generator, dtype=torch.float64)
        targets = torch.randint(0, 4, (2, *size), generator=generator)
        targets[targets == 3] = 255
        sums, pixels = label_sums(features, targets, 3)
        resized = functional.interpolate(features, size, mode="bilinear", align_corners=False)
        for number in range(3):
            where = (targets == number).unsqueeze(1)
            assert pixels[number] == where.sum()
            assert torch.allclose(sums[number], (resized * where).sum(dim=(0, 2, 3)))

    @QUICK
    @given(st.integers(0, 999))
    def test_statistics_of_labels_are_mean_and_population_variance(self, seed):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
        targets = torch.randint(0, 5, (2, 5, 6), generator=generator)
        targets[targets == 4] = 255
        figures, pixels = label_statistics(values, targets, 4)
        for image in range(2):
            for number in range(4):
                chosen = values[image][targets[image] == number]
                assert pixels[image, number] == len(chosen)
                if len(chosen):
                    expected = torch.stack([chosen.mean(), chosen.var(unbiased=False)])
                    assert torch.allclose(figures[image, number], expected)


class TestGrowing:
    @pytest.mark.parametrize("name", ["fcn-idrnet-", "pspnet-idrnet-before", "upernet-idrnet-aspp-after"])
    def test_a_new_class_takes_no_pixel_before_a_label_has_named_it(self, name):
        segmenter = make(name).train()
        segmenter.grow(1, "random")
        tables = segmenter.head.tables
        segmenter.head.classifier_stage1.steps[-1].bias.data.fill_(100.0)  # the new class would win everywhere
        segmenter.observe(segmenter(images()), labels(classes=3), **exchange())
        assert tables.seen.tolist() == [True, True, True, False]
        assert (tables.memory[3] == 0).all()
        segmenter.observe(segmenter(images()), labels(classes=4), **exchange())
        assert tables.seen.all()
        assert (tables.memory[3] != 0).any()

    def test_observing_moves_the_row_of_the_deleted_class_only(self):
        segmenter = make("fcn-idrnet-").train()
        before = segmenter.head.tables.mean.clone()
        output = segmenter(images(count=1))
        segmenter.observe(output, labels(count=1), **exchange())
        moved = (segmenter.head.tables.mean != before).any(dim=1)
        assert moved.sum() == 1
        assert assign(output.passed.stage1).present[0, moved].all()
        assert int(segmenter.head.tables.counter.round().sum()) == 1

    def test_evaluation_changes_no_table(self):
        segmenter = make("fcn-idrnet-").eval()
        before = {name: value.clone() for name, value in segmenter.state_dict().items()}
        output = segmenter(images())
        segmenter.observe(output, labels(), **exchange())
        for name, value in segmenter.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_both_passes_drop_the_same_channels(self):
        segmenter = make("fcn-idrnet-", dropout=0.5).train()
        output = segmenter(images())
        one, other = (segmenter.head.decode(output.passed) for _ in range(2))
        dropped = (one == 0).flatten(2).all(dim=2)
        assert torch.equal(dropped, (other == 0).flatten(2).all(dim=2))
        assert dropped.any()


def test_aggregation_holds_nothing_of_classes_times_pixels():
    """Its largest tensor is linear in pixels or in classes (times channels), or the table itself."""
    classes, channels, pixels = 300, 32, (40, 50)

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            out = function(*arguments, **(named or {}))
            if isinstance(out, torch.Tensor):
                self.seen = max(self.seen, out.untyped_storage().nbytes() // out.element_size())
            return out

    made = assign(torch.randn(1, classes, *pixels))
    features = torch.randn(1, channels, *pixels)
    with Largest() as largest:
        aggregate(class_means(features, made), made, torch.eye(classes), drop=True)
    assert largest.seen <= max(classes**2, channels * pixels[0] * pixels[1]) < classes * pixels[0] * pixels[1]
