"""MBS: which labels it selects, what its terms reach, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch

from contseg.errors import ContsegError
from contseg.losses.tokens import guided_distillation, token_overlap
from contseg.methods.mbs import MBS
from contseg.methods.mbs_released import MBSReleased
from contseg.methods.registry import make_method
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import SegmenterOutput
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step
from tests.parity.goldens import context_of

TOKENS = NetworkOptions(backbone="resnet18", head="mask-transformer")


def relabelled(labels, probabilities, annotated=(False, False, False, True)):
    """A row of labels, of which the teacher says these probabilities of background and two old classes."""
    batch = Batch(torch.empty(0), torch.tensor([[labels]]), ("a",), torch.tensor([annotated]))
    teacher = SegmenterOutput(torch.tensor(probabilities).log().T[None, :, None])
    return MBS().relabel(batch, teacher, context_of(3, 1)).labels[0, 0].tolist()


SURE, UNSURE, BACKGROUND = [0.1, 0.8, 0.1], [0.4, 0.35, 0.25], [0.6, 0.3, 0.1]


class TestLabels:
    def test_background_becomes_the_class_that_is_sure_is_ignored_where_some_class_is_likelier_and_stays_otherwise(self):
        assert relabelled([0, 0, 0], [SURE, UNSURE, BACKGROUND]) == [1, 255, 0]

    def test_other_labels_are_kept(self):
        assert relabelled([3, 255, 3], [SURE, UNSURE, BACKGROUND]) == [3, 255, 3]

    def test_a_sure_background_is_no_class(self):
        assert relabelled([0], [[0.9, 0.05, 0.05]]) == [0]

    def test_background_cannot_hide_a_class_that_was_annotated(self):
        assert relabelled([0, 0], [SURE, UNSURE], (False, True, True, False)) == [0, 0]
        assert relabelled([0], [[0.2, 0.35, 0.45]], (False, True, False, True)) == [255]
        assert relabelled([0], [[0.3, 0.45, 0.25]], (False, True, False, True)) == [0]


class TestTerms:
    def test_only_tokens_of_new_classes_are_pushed(self, give_lesson, batch):
        lesson = give_lesson(MBS())
        lesson.terms(batch)["orthogonality"].backward()
        old, new = lesson.context.student.classifier.steps
        assert old.tokens.grad is None or not old.tokens.grad.any()
        assert new.tokens.grad.any()

    def test_nothing_is_held_where_no_patch_is_old(self, give_lesson, batch):
        everything_new = batch.relabelled(torch.full_like(batch.labels, 3))
        terms = give_lesson(MBS()).terms(everything_new)
        assert terms["patches"].item() == 0
        assert all(torch.isfinite(term) for term in terms.values())

    def test_terms_without_weight_are_left_out(self, give_lesson, batch):
        weightless = dict.fromkeys(("distillation", "patches", "classes", "orthogonality"), 0.0)
        assert list(give_lesson(MBS(**weightless)).terms(batch)) == ["cross_entropy"]

    def test_labels_guide_background_to_the_new_class(self):
        student = torch.zeros(1, 4, 1, 2, requires_grad=True)
        said = torch.tensor([3.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
        guided_distillation(student, said, torch.tensor([[[0, 3]]])).sum().backward()
        assert (student.grad[0, 0, 0] < 0).tolist() == [True, False]
        assert (student.grad[0, 3, 0] < 0).tolist() == [False, True]

    def test_released_leaves_orthogonal_pairs_out(self):
        cosines = token_overlap(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), 2)
        assert cosines.tolist() == [[1.0, 0.0]]
        assert (MBS().overlap(cosines).item(), MBSReleased().overlap(cosines).item()) == (0.5, 1.0)
        assert MBSReleased().overlap(0 * cosines).item() == 0


def steps(background=True):
    table = SimpleNamespace(has_background=background)
    return [SimpleNamespace(index=0, new_count=3, table=table), SimpleNamespace(index=1, new_count=1, table=table)]


class TestRefused:
    @pytest.mark.parametrize("name", ["resnet101", "vit_base"])
    def test_networks_without_class_tokens(self, name):
        wrong = NetworkOptions(backbone=name, head="fcn")
        with pytest.raises(
            ContsegError, match=f"network.head: method 'mbs' learns class tokens, and {name} with fcn has none"
        ):
            MBS().check(wrong, steps())
        MBS().check(TOKENS, steps())

    def test_classes_without_background(self):
        with pytest.raises(ContsegError, match=r"method\.name: 'mbs' starts new classes from background, and these classes"):
            MBS().check(TOKENS, steps(background=False))

    @pytest.mark.parametrize("name", ["ilt", "lwf", "mib", "plop", "ewc", "sdr", "ucd", "lwf-mc", "finetune", "frozen"])
    def test_not_the_methods_that_only_need_features_and_logits(self, name):
        make_method(name).check(TOKENS, [])

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            (
                "dft",
                "network.head: method 'dft' makes the classifiers of all steps at step 0, and the class tokens of mask-",
            ),
            ("rcil", "network.head: method 'rcil' merges two branches, and resnet18 with mask-transformer has one"),
            ("dkd", "network.background: method 'dkd' cannot learn with learned; set network.background=auxiliary"),
            ("star", "network.background: method 'star' cannot learn with learned; set network.background=constant"),
        ],
    )
    def test_methods_that_need_a_classifier_of_their_own(self, name, told):
        with pytest.raises(ContsegError, match=told):
            make_method(name).check(TOKENS, [Step.of([*map(str, range(3))], old=0)])
