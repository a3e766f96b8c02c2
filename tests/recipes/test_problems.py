"""What is wrong with a recipe is told in one line that names the key, what was found, and the nearest right thing."""

import re

import pytest

from contseg.errors import ContsegError
from contseg.recipes.build import make_job
from contseg.recipes.read import read_recipe
from tests.conftest import TINY

NAME = "digits/plop_5-1"

PROBLEMS = [
    # unknown keys
    ("training.lrr=0.1", r"training\.lrr: unknown key \(got 0\.1\); did you mean 'lr'\?"),
    ("trainin.lr=0.1", r"trainin: unknown key .*did you mean 'training'\?"),
    ("network.headd=fcn", r"network\.headd: unknown key .*did you mean 'head'\?"),
    ("network.backbone.with=3", r"network\.backbone: resnet18 has no key 'with' \(got 3\); did you mean 'width'\?"),
    ("network.head.fpn_width=8", r"network\.head: deeplabv3-mib has no key 'fpn_width' \(got 8\); "),
    ("network.head=[fcn]", r"network\.head: expected the name or the keys of a head \(got \['fcn'\]\)"),
    ("network.head.dilations=[1, 2]", r"network\.head: deeplabv3-mib has no key 'dilations'"),
    ("network.auxiliary_width=8", r"network\.auxiliary_width: unknown key .*did you mean 'auxiliary'\?"),
    ("training.strategy=ddp", r"training\.strategy: unknown key"),
    ("training.interval=3", r"training\.interval: unknown key"),
    ("data.jitter={brightnes: 0.1}", r"data\.jitter\.brightnes: unknown key .*did you mean 'brightness'\?"),
    ("method.podd=0.1", r"method\.podd: method 'plop' has no such hyper-parameter; did you mean 'pod'\?"),
    ("training.lr_factors.backbne=2", r"training\.lr_factors\.backbne.*'backbone'"),
    # unknown names
    ("method.name=plopp", r"method\.name: unknown method 'plopp'; did you mean 'plop'\?"),
    ("network.backbone=resnet19", r"network\.backbone: unknown backbone 'resnet19'; did you mean 'resnet18'\?"),
    ("network.head=deeplab", r"network\.head: unknown head 'deeplab'; did you mean 'deeplabv3'\?"),
    ("data.dataset=dgits", r"data\.dataset: unknown dataset 'dgits'; did you mean 'digits'\?"),
    ("data.pipeline=mibb", r"data\.pipeline: unknown pipeline 'mibb'; did you mean 'mib'\?"),
    ("data.crop=4", r"data\.crop: .*8 at least: a side, or \[height, width\].*\(got 4\)"),
    ("data.crop=[64, 4]", r"data\.crop: .*8 at least"),
    ("data.crop=[64, 64, 64]", r"data\.crop: .*a side, or \[height, width\]"),
    ("data.crop=[64.0, 64]", r"data\.crop: .*whole pixels"),
    ("data.crop=true", r"data\.crop: .*whole pixels"),
    ("data.scale=[2, 1]", r"data\.scale: .*\[least, most\]"),
    ("data.scale=[0, 1]", r"data\.scale\.0: .*greater than 0"),
    ("data.resize=[512]", r"data\.resize: .*2 items"),
    ("training.schedule=cosine", r"training\.schedule: .*'poly'.*got 'cosine'"),
    ("scenario.setting=overlap", r"scenario\.setting: .*'overlapped'"),
    ("scenario.split=5x1", r"scenario\.split: cannot read '5x1'; for 10 classes write BASE-INCREMENT such as 5-1"),
    ("scenario.split=15-1", r"scenario\.split: '15-1' does not fit 10 classes"),
    ("scenario.split=4-4", r"scenario\.split: '4-4' does not fit 10 classes \(10 - 4 is not a multiple of 4\)"),
    ("scenario.order=zigzag", r"scenario\.order: 'zigzag' is neither"),
    ("data.options={trian: 3}", r"data\.options\.trian: dataset 'digits' has no such option; did you mean 'train'"),
    # wrong kinds
    ("training.lr=fast", r"training\.lr: .*number \(got 'fast'\)"),
    ("training.batch=2.5", r"training\.batch: .*integer.*2\.5"),
    ("training.batch=yes", r"training\.batch: .*integer.*'yes'"),
    ("training.channels_last=no", r"training\.channels_last: .*boolean.*'no'"),
    ("training=5", r"training: .*got 5"),
    ("method=plop", r"method: .*got 'plop'"),
    ("method.pod=much", r"method\.pod: .*number \(got 'much'\)"),
    ("method.variant=papre", r"method\.variant: .*'paper' or 'released'.*got 'papre'"),
    ("method.name=5", r"method\.name: .*5"),
    ("method.name=", r"method\.name: "),
    ("method.name=[plop]", r"method\.name: .*plop"),
    ("method={}", r"method\.name: missing"),
    ("data={}", r"data\.dataset: missing; set data\.dataset=VALUE"),
    ("scenario.split=5", r"scenario\.split: cannot read '5'; for 10 classes write BASE-INCREMENT such as 5-1"),
    ("network.mean=[0.5]", r"network\.mean"),
    # out of range
    ("training.batch=0", r"training\.batch: .*greater than or equal to 1"),
    ("training.lr=-1", r"training\.lr: .*greater than 0"),
    ("training.epochs=-1", r"training\.epochs: "),
    ("training.epochs=[]", r"training\.epochs: "),
    ("training.momentum=-1", r"training\.momentum: "),
    ("network.output_stride=7", r"network\.backbone\.output_stride: .*8, 16 or 32 \(got 7\)"),
    ("network.width=0", r"network\.backbone\.width: "),
    ("network.head_width=0", r"network\.head\.width: "),
    ("network.pooling_size=0", r"network\.head\.pooling_size: "),
    ("network.slope=-1", r"network\.backbone\.slope: "),
    ("scenario.validation=1.5", r"scenario\.validation: 1\.5"),
    # no override at all
    ("training.lr", r"override 'training\.lr': write KEY=VALUE"),
    ("=3", r"override '=3': write KEY=VALUE"),
    ("training.lr.x=3", r"override 'training\.lr\.x=3': 'lr' is 0\.1 and has no keys"),
    ("training.lr=[", r"override 'training\.lr=\[': the value is not YAML"),
]


@pytest.mark.parametrize(("override", "told"), PROBLEMS, ids=[override for override, _ in PROBLEMS])
def test_an_override_that_is_wrong(tmp_path, override, told):
    with pytest.raises(ContsegError) as caught:
        make_job(read_recipe(NAME, [*TINY, override]), tmp_path)
    message = str(caught.value)
    assert re.search(told, message), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [", "not YAML"),
        ("- a\n- b", "a recipe is a mapping of keys to values, found list"),
        ("", "a recipe is a mapping of keys to values, found NoneType"),
        ("name: x\nname: y\ndata: {dataset: digits}", "not YAML"),
        ("data: {dataset: digits}", "name: missing"),
        ("name: x", "data: missing"),
        ("name: x\ndata: {dataset: digits}\ntraining: {lrr: 1}", r"training\.lrr: unknown key"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path, text, told):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ContsegError, match=told) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
