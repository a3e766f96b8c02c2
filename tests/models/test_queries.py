"""Decoders of queries: deformable attention against a plain loop, selection, virtual queries, old positions."""

import pytest
import torch

from contseg.models.queries.deformable import DeformableAttention, centres, sampled_attention
from contseg.models.queries.pixel_decoder import PixelDecoder
from contseg.models.queries.selecting import SelectingDecoder
from tests.losses.test_masks import plain_value

SIZES = [(2, 3), (4, 5)]


def test_sampled_attention_is_a_weighted_sum_of_bilinear_values():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 6 + 20, 2, 3, generator=generator, dtype=torch.float64)
    places = torch.rand(2, 4, 2, 2, 3, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2  # also outside
    weights = torch.rand(2, 4, 2, 2, 3, generator=generator, dtype=torch.float64)
    found = sampled_attention(values, SIZES, places, weights)
    levels = values.split([6, 20], dim=1)
    for image in range(2):
        for query in range(4):
            for head in range(2):
                for channel in range(3):
                    expected = sum(
                        float(weights[image, query, head, level, point])
                        * plain_value(
                            levels[level][image, :, head, channel].view(SIZES[level]),
                            *places[image, query, head, level, point].tolist(),
                        )
                        for level in range(2)
                        for point in range(3)
                    )
                    assert found[image, query, 3 * head + channel].item() == pytest.approx(expected)


def test_deformable_attention_starts_with_equal_weights_around_its_query():
    """Where values are coordinates, a query in the middle sees the mean of symmetric offsets: its own place."""
    attention = DeformableAttention(8, heads=4, levels=1, points=2)
    with torch.no_grad():
        attention.value.weight.copy_(torch.eye(8))
        attention.output.weight.copy_(torch.eye(8))
    size = [(9, 9)]
    middle = centres(size, torch.zeros(()))
    values = middle.repeat(1, 4)[None]  # x and y in every head
    found = attention(torch.randn(1, 81, 8), middle, values, size)[0, 40].view(4, 2)
    torch.testing.assert_close(found.mean(dim=0), torch.tensor([0.5, 0.5]))
    assert not torch.allclose(found[0], found[1])


def decoder(**options) -> SelectingDecoder:
    torch.manual_seed(0)
    return SelectingDecoder(16, classes=7, queries=5, heads=2, hidden=32, layers=3, **options)


def inputs():
    generator = torch.Generator().manual_seed(1)
    levels = [torch.randn(2, 16, side, side + 1, generator=generator) for side in (2, 4, 8)]
    return levels, torch.randn(2, 16, 16, 18, generator=generator)


def test_virtual_queries_change_no_real_one():
    network, (levels, masks) = decoder(), inputs()
    alone, joined = network(levels, masks), network(levels, masks, torch.randn(2, 3, 16))
    for one, other in zip(alone.predictions, joined.predictions, strict=True):
        assert other.class_logits.shape[1] == 8
        torch.testing.assert_close(other.class_logits[:, :5], one.class_logits)
        torch.testing.assert_close(other.mask_logits[:, :5], one.mask_logits)
    assert torch.equal(alone.features, joined.features)


def test_the_selected_positions_have_the_best_scores():
    network, (levels, masks) = decoder(), inputs()
    memory = network.remember(levels, masks)
    found = network(levels, masks)
    assert torch.equal(memory.scores.gather(1, found.positions), memory.scores.topk(5, dim=1).values)
    best = found.predictions[0].class_logits.amax(dim=2)
    torch.testing.assert_close(best, memory.scores.gather(1, found.positions))


def test_decoding_the_own_positions_again_is_the_same():
    network, (levels, masks) = decoder(), inputs()
    found = network(levels, masks)
    again = network.decode(network.remember(levels, masks), found.positions)
    assert torch.equal(again.predictions[-1].class_logits, found.predictions[-1].class_logits)
    other = network.decode(network.remember(levels, masks), found.positions.flip(1), reference_positions_BQ=found.positions)
    assert not torch.equal(other.predictions[-1].class_logits, found.predictions[-1].class_logits.flip(1))


def test_layers_do_not_train_the_selection():
    """Queries and boxes are detached before the decoder; the first prediction trains the selection's own heads."""
    network, (levels, masks) = decoder(), inputs()
    found = network(levels, masks)
    found.predictions[-1].class_logits.sum().backward(retain_graph=True)
    assert network.candidate.weight.grad is None
    found.predictions[0].class_logits.sum().backward()
    assert network.candidate.weight.grad.any()


def test_the_pixel_decoder_learns_everywhere():
    torch.manual_seed(0)
    network = PixelDecoder([4, 8, 8, 8], channels=16, heads=2, hidden=32, layers=2)
    for layer in network.layers:  # at first, queries have no influence on where they look
        torch.nn.init.normal_(layer.attention.offsets.weight, std=0.1)
        torch.nn.init.normal_(layer.attention.weights.weight, std=0.1)
    maps = [torch.randn(1, width, side, side) for width, side in ((4, 16), (8, 8), (8, 4), (8, 2))]
    levels, masks = network(maps)
    (sum(one.square().mean() for one in levels) + masks.square().mean()).backward()
    untouched = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert untouched == []
