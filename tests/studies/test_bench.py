"""What a run will cost: every figure follows from the others, and nothing is left behind."""

import json
import math
import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import unilat
from unilat.cli import main
from unilat.recipe import presets
from unilat.recipe.build import describe
from unilat.recipe.config import RunConfig, latent_grid
from unilat.run import evaluate as measuring
from unilat.run import reference as referring
from unilat.run.stages import schedule, settling
from unilat.studies import bench as study
from unilat.studies import phases, timing
from unilat.studies.bench import Way, bench
from unilat.training.fast import Choices
from unilat.training.machine import peak_memory
from unilat.training.micro import MicroBatch
from unilat.types import UserError

TINY = presets.get("tiny")
SETTLING = replace(TINY, stage1=replace(TINY.stage1, settle=640, settle_batch=48))
CPU = torch.device("cpu")


@pytest.mark.usefixtures("on_cpu")
def test_figures_follow_from_one_another() -> None:
    """Kills: forward FLOPs told as training's, a batch told as an example, minutes of one step or of one stage, a share
    of another stage's networks."""
    found = bench(SETTLING, channels=1)
    counted = describe(SETTLING, 1, 10).parts
    assert set(found.parts) == set(counted) == {"encoder", "prior", "decoder", "base"}
    for name, part in found.parts.items():
        assert part.gflops == pytest.approx(3e-9 * counted[name].forward_flops)
        assert part.share == pytest.approx(part.gflops / part.ms * 1e3 / found.matrix_gflops)
        assert part.ms > 0
    plans = {"stage1": schedule(TINY.stage1), "prior": settling(SETTLING.stage1), "stage2": schedule(TINY.stage2)}
    networks = {"stage1": ("encoder", "prior", "decoder"), "prior": ("prior",), "stage2": ("base",)}
    assert set(found.chosen.stages) == set(plans) and found.plain is None and found.chosen.name == "plain"
    for name, plan in plans.items():
        stage = found.chosen.stages[name]
        assert stage.minutes == pytest.approx(stage.ms / 6e4 * math.ceil(plan.samples / plan.batch))
        assert stage.examples_per_second == pytest.approx(plan.batch / stage.ms * 1e3)
        assert stage.micro_batch == plan.batch and stage.peak_mib > 50
        each, step = (
            sum(getattr(counted[part], of) for part in networks[name]) for of in ("example_flops", "step_flops")
        )
        flops = (each + step / plan.batch) * stage.examples_per_second
        assert stage.share == pytest.approx(flops / 1e9 / found.matrix_gflops)
    way = found.chosen
    assert way.minutes == pytest.approx(
        sum(stage.minutes for stage in way.stages.values()) + way.encode_minutes + way.evaluate_minutes
    )
    assert way.encode_minutes > 0 and way.evaluate_minutes > 0
    assert found.to_json()["chosen"]["minutes"] == way.minutes  # type: ignore[index]


def test_parts_that_are_not_trained_are_not_timed() -> None:
    """Kills: a base model in a run without stage 2, a prior where a normal one is not trained."""
    config = replace(
        SETTLING,
        autoencoder=replace(TINY.autoencoder, price="normal", learned_variance=True),
        stage2=replace(TINY.stage2, samples=0),
    )
    found = bench(config)
    assert set(found.parts) == {"encoder", "decoder"} and set(found.chosen.stages) == {"stage1"}
    assert found.chosen.encode_minutes == 0


def test_what_cannot_be_trained_is_refused() -> None:
    """Kills: minutes told for a run that would not start."""
    with pytest.raises(UserError, match="`channels` must be 1"):
        bench(TINY, channels=2)
    with pytest.raises(UserError, match="for video"):
        bench(presets.get("kinetics-600"))


def test_the_command_takes_presets_files_and_runs(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kills: a run's channels or pictures forgotten, a size that is silently ignored, JSON beside text, more than one
    screen."""
    before = sorted(path.name for path in tiny_run.iterdir())
    assert main(["bench", str(tiny_run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    counted = describe(presets.get("tiny"), 1, 10).parts
    assert found["parts"]["decoder"]["gflops"] == pytest.approx(3e-9 * counted["decoder"].forward_flops)
    assert found["trained"] == json.loads((tiny_run / "data.json").read_text())["train"]
    assert sorted(path.name for path in tiny_run.iterdir()) == before
    assert main(["bench", "tiny", "--channels", "1", "--pictures", "1000"]) == 0
    text = capsys.readouterr().out
    assert "encode 868" in text and "matrix product" in text
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 100
    assert main(["bench", str(tiny_run / "config.json"), "--size", "32"]) == 2
    assert "--size goes with a preset" in capsys.readouterr().err


class Clock:
    """Stands for ``time``: each reading is so much later than the one before."""

    def __init__(self, steps: list[float]):
        self.steps, self.now = iter(steps), 0.0

    def perf_counter(self) -> float:
        """Seconds."""
        self.now += next(self.steps)
        return self.now


def test_seconds_are_the_median_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slow calls, then eight of which one stalls. Kills: a mean, warm-up steps that count, and the pause between
    two calls told as one."""
    waits = [30.0, 20.0, 10.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 90.0]
    monkeypatch.setattr(timing, "time", Clock([part for wait in waits for part in (0.5, wait)]))
    assert timing.seconds(lambda: None, CPU) == pytest.approx(3.5)
    monkeypatch.setattr(timing, "time", Clock([0.5, 7.0]))
    assert timing.once(lambda: None) == pytest.approx(7.0)


def test_a_stages_steps_are_timed_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven steps end at these times. Kills: warm-up steps that count, the mean, a stage of other lengths."""
    waits = [9.0, 8.0, 7.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 90.0]
    monkeypatch.setattr(timing, "time", Clock(waits))
    asked: list[Any] = []

    def fit(stage: Any, plan: Any, *rest: Any, progress: Any, stop_at: int, **options: Any) -> None:
        asked.append((stop_at, plan.samples, options["micro"].size))
        for _ in range(stop_at):
            progress({})

    monkeypatch.setattr(timing, "fit", fit)
    plan = replace(schedule(TINY.stage1), batch=48, samples=1000)
    assert timing.step_of(None, plan, CPU) == (pytest.approx(3.5), 48)  # type: ignore[arg-type]
    assert asked == [(11, 48 * 12, 0)]


def test_a_step_of_many_micro_batches_is_counted_up_from_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device where 12 of 100 rows fit: 9 parts. One takes 5 s (2 of them the optimiser's), two take 8, so that
    nine take 2 + 9 · 3. Kills: nine optimisers, eight parts, a step of 64 micro-batches timed eleven times."""
    asked: list[tuple[int, int]] = []

    def steps(stage: Any, plan: Any, place: Any, micro: MicroBatch, count: int = 11) -> float:
        asked.append((plan.batch, count))
        micro.size = 12
        return 2.0 + 3.0 * -(-plan.batch // 12)

    monkeypatch.setattr(timing, "_steps", steps)
    plan = replace(schedule(TINY.stage1), batch=100)
    assert timing.step_of(None, plan, torch.device("cuda")) == (pytest.approx(29.0), 12)  # type: ignore[arg-type]
    assert asked == [(100, 1), (12, 11), (24, 11)]
    asked.clear()
    plan = replace(plan, batch=20)
    assert timing.step_of(None, plan, torch.device("cuda")) == (pytest.approx(8.0), 12)  # type: ignore[arg-type]
    assert asked == [(20, 1), (20, 11)]


def test_a_stage_s_figures_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of 100 examples takes 2 s, 7 at a time. Kills: minutes of all samples as if each were a step, part of a
    batch left out, milliseconds, FLOPs of one pass or of tokens that are dropped, MiB of another stage."""
    base = replace(TINY.base, token_dropping=0.5, vit=replace(TINY.base.vit, blocks=(2, 4)))
    config = replace(TINY, base=base, stage2=replace(TINY.stage2, batch=100, samples=1010))
    subject = study._subject(config, 3, CPU, phases.Data(5, 5, 5))
    monkeypatch.setattr(study, "step_of", lambda stage, plan, place, capture: (2.0, 7))
    monkeypatch.setattr(study, "peak", lambda place: 123.0)
    stage = study.base_stage(subject.base, torch.randn(4, *subject.shape), subject.labels)
    found, way = study._stage(subject, Choices(), stage, schedule(config.stage2), ["base"])
    flops = describe(config, 3, 10).parts["base"].training_flops / 1010 * 100
    assert flops < 3 * 100 * describe(config, 3, 10).parts["base"].forward_flops
    counted = subject.counted["base"]
    assert (way, found.ms, found.examples_per_second, found.micro_batch, found.peak_mib) == ("plain", 2000, 50, 7, 123)
    assert found.minutes == pytest.approx(11 * 2 / 60)
    assert found.share == pytest.approx(flops / 2 / 1e9 / subject.rate)
    subject = replace(subject, counted={"base": replace(counted, step_flops=round(flops) // 2)})
    more, _ = study._stage(subject, Choices(), stage, schedule(config.stage2), ["base"])
    assert more.share == pytest.approx(1.5 * found.share), "Muon's products are done once a step"


def test_rates_and_parts_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call takes half a second, a matrix product a quarter. Kills: a product counted as additions or as one of
    three, ms of a batch told as of an example, the batch of one stage for the other's, and a pass that is not both."""
    monkeypatch.setattr(timing, "seconds", lambda call, place: 0.25)
    assert timing.matrix_rate(CPU, side=64) == pytest.approx(2 * 64**3 / 1e9 / 0.25)
    subject = study._subject(TINY, 3, CPU, phases.Data(5, 5, 5))
    monkeypatch.setattr(study, "seconds", lambda call, place: call() or 0.5)
    parts = study._parts(subject, {"stage1": 20, "stage2": 50})
    assert parts == pytest.approx({"encoder": 25.0, "prior": 25.0, "decoder": 25.0, "base": 10.0})
    assert all(parameter.grad is not None for parameter in subject.autoencoder.encoder.parameters())
    monkeypatch.setattr(study, "seconds", lambda call, place: 0.5 + 0.0 * len(call()))
    assert study._passing(subject, 5) == pytest.approx(dict.fromkeys(("encoder", "prior", "decoder", "base"), 0.1))
    bare = replace(subject, config=replace(TINY, stage2=replace(TINY.stage2, samples=0)))
    assert study._passing(bare, 5)["base"] == 0


def test_the_faster_of_two_matrix_rates_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a share above what the machine can do because the product was timed while it was busy."""
    rates = iter((7.0, 3.0, 3.0, 7.0))
    monkeypatch.setattr(study, "matrix_rate", lambda place: next(rates))
    assert [study._subject(TINY, 3, CPU, phases.Data(5, 5, 5)).rate for _ in range(2)] == [7.0, 7.0]


def test_a_way_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a stage that trains on pictures of another colour or size or by another plan, networks of another stage,
    seconds for minutes, another phase's calls, judges that cost nothing."""
    stages: list[tuple[Any, Any, list[str]]] = []

    def timed(subject: Any, choices: Any, stage: Any, plan: Any, networks: list[str]) -> tuple[study.StageTime, str]:
        stages.append((stage, plan, networks))
        made = study.StageTime(ms=1, examples_per_second=1, minutes=1, share=1, micro_batch=9, peak_mib=1)
        return made, "plain" if stage.name == "stage1" else "compiled"

    asked: list[int] = []
    spent = {"encoder": 0.25, "prior": 0.5, "decoder": 2.0, "base": 4.0}
    monkeypatch.setattr(study, "_stage", timed)
    monkeypatch.setattr(study, "_passing", lambda subject, size: asked.append(size) or spent)
    monkeypatch.setattr(study, "_judging", lambda subject: 30.0)
    subject = study._subject(SETTLING, 3, CPU, phases.Data(120, 40, 2))
    found = study._way(subject, Choices(), lambda line: None)
    assert found.name == "stage1 plain; prior compiled; stage2 compiled" and asked == [9]
    assert [(plan.batch, plan.samples) for _, plan, _ in stages] == [(32, 1280), (48, 640), (32, 640)]
    assert [names for *_, names in stages] == [["encoder", "prior", "decoder"], ["prior"], ["base"]]
    assert tuple(stages[0][0].batch.__self__.pictures.shape[1:]) == (3, *TINY.data.size)
    assert tuple(stages[2][0].batch(torch.tensor([0]))[0].shape[1:]) == (4, *latent_grid(TINY))
    assert found.encode_minutes == pytest.approx(120 * 0.75 / 60)
    calls = phases.evaluation(SETTLING, subject.data)
    assert found.evaluate_minutes == pytest.approx((sum(spent[name] * calls[name] for name in spent) + 30) / 60)


def test_the_plain_way_is_timed_where_another_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: two columns of the same numbers, one way told under the other's name."""
    seen: list[Choices] = []

    def way(subject: Any, choices: Choices, say: Any) -> Way:
        seen.append(choices)
        name = "plain" if choices == study.PLAIN else "bf16"
        return Way(name=name, stages={}, encode_minutes=len(seen), evaluate_minutes=0)

    monkeypatch.setattr(study, "_way", way)
    found = bench(TINY)
    assert seen == [study.CHOSEN, study.PLAIN] and found.plain
    assert (found.chosen.name, found.plain.name, found.chosen.minutes, found.plain.minutes) == ("bf16", "plain", 1, 2)
    assert (study.PLAIN.compile, study.PLAIN.precision, study.PLAIN.checkpointing) == ("off", "float32", False)


def test_memory_is_the_stage_s_own() -> None:
    """Kills: the memory of a stage before told as this one's, where the system can forget it; another unit."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system cannot forget a peak")
    timing.forget_peak(CPU)
    before = timing.peak(CPU)
    assert before == pytest.approx(peak_memory())
    with mmap.mmap(-1, 100 << 20) as block:  # new pages, where a tensor may get what others have left
        for _ in range(100):
            block.write(bytes(1 << 20))
        assert 90 < timing.peak(CPU) - before < 130
    timing.forget_peak(CPU)
    assert timing.peak(CPU) < before + 50


class Judge:
    """A feature network that counts what it is shown."""

    name, sha256, protocol = "judge", "0", "judge"

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, pictures: Tensor) -> Tensor:
        self.seen += len(pictures)
        return pictures.float().flatten(1)[:, ::61]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"decoder_steps": 3, "guidance": 1.0, "pictures": 7, "samples": 21},
        {"step_counts": (3,), "rate_levels": 3, "base_steps": 2},
    ],
)
def test_calls_of_an_evaluation_are_those_it_makes(
    tiny_run: Path, changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks on each network count the examples that pass while a real run is evaluated. Kills: any call forgotten, made
    twice or counted for another network; pictures that were not held out; the classifier of a run without classes."""
    run = unilat.load(tiny_run)
    run.config = replace(run.config, evaluation=replace(run.config.evaluation, **{"classifier_samples": 50, **changed}))
    assert run.base is not None
    nets = {"encoder": run.autoencoder.encoder.stem, "prior": run.autoencoder.prior.net}
    nets |= {"decoder": run.autoencoder.decoder.net, "base": run.base.denoise.net}
    seen = dict.fromkeys(nets, 0)
    for name, net in nets.items():
        net.register_forward_hook(lambda net, given, output, name=name: seen.update({name: seen[name] + len(given[0])}))
    judge, learnt = Judge(), list[int]()
    learn = measuring.train_classifier
    monkeypatch.setattr(referring, "feature_network", lambda spec, device: judge)
    monkeypatch.setattr(
        measuring,
        "train_classifier",
        lambda *given, samples, device: learnt.append(samples) or learn(*given, samples=samples),
    )
    monkeypatch.setattr(measuring, "OTHER_COUNTS", 5)
    monkeypatch.setattr(phases, "OTHER_COUNTS", 5)
    monkeypatch.setattr(measuring.results, "write", lambda *given: None)
    monkeypatch.setattr(measuring, "write_safetensors", lambda *given: None)
    measuring.evaluate(run)
    data = phases.Data(run.data.train, run.data.test, len(run.classes))
    assert phases.evaluation(run.config, data) == seen
    assert phases.judged(run.config, data) == judge.seen and [phases.named(run.config, data)] == learnt


def test_calls_of_other_runs_by_hand() -> None:
    """40 pictures held out, no classes. Kills: guidance without classes, a decoder of one call asked at several counts,
    samples of a run that has no base model, a prior that samples counted as a base."""
    data, how = phases.Data(300, 40, 0), TINY.evaluation
    assert (how.pictures, how.samples, how.rate_levels, how.base_steps, how.decoder_steps) == (32, 32, 2, 4, 2)
    wanted = {"encoder": 32 * 4, "prior": 32 * 2 + 512, "decoder": 32 * 3 + 64, "base": 32 * 2 + 32 * 4}
    assert phases.evaluation(TINY, data) == wanted
    squared = replace(TINY, autoencoder=replace(TINY.autoencoder, decoder_loss="mse"))
    assert phases.evaluation(squared, data) == wanted | {"encoder": 32 * 3, "decoder": 64}
    alone = replace(TINY, stage2=replace(TINY.stage2, samples=0))
    assert phases.evaluation(alone, data) == {"encoder": 32 * 3, "prior": 576, "decoder": 32 * 3}
    assert phases.judged(alone, data) == 3 * 32 and phases.judged(TINY, data) == 4 * 32
    assert phases.encoding(alone, data) == {"encoder": 0, "prior": 0}
    assert phases.encoding(TINY, data) == {"encoder": 300, "prior": 300}
    single = replace(alone, evaluation=replace(how, sample_from="prior"))
    both = phases.evaluation(single, replace(data, classes=3))
    assert both == {"encoder": 32 * 4, "prior": 576 + 32 * 2 + 32 * 4, "decoder": 32 * 3 + 64}
    naming = replace(TINY, evaluation=replace(how, classifier_samples=50))
    assert [phases.named(naming, replace(data, classes=count)) for count in (0, 1, 3)] == [0, 0, 50]
    assert phases.named(replace(naming, stage2=alone.stage2), replace(data, classes=3)) == 0


def test_pictures_are_split_as_a_run_splits_them() -> None:
    """Kills: a share of more than is held out at most, calibration pictures counted as trained on, all of a few."""

    def split(pictures: int, **changed: Any) -> phases.Data:
        config: RunConfig = replace(TINY, data=replace(TINY.data, **changed))
        return phases.Data.of(config, pictures, 3)

    assert split(1000, held_out=0.2, calibration=50) == phases.Data(750, 200, 3)
    assert split(1000, held_out=0.2, held_out_at_most=90, calibration=50) == phases.Data(860, 90, 3)
    assert split(100, held_out=0.2, calibration=512) == phases.Data(70, 20, 3)


def test_judges_are_timed_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 s for 64 pictures and 3 for a classifier of 640. Kills: seconds of the few that were timed told as of all, more
    pictures learnt from than the run has asked for."""
    spans, learnt = iter((8.0, 3.0, 3.0)), list[int]()
    monkeypatch.setattr(study, "once", lambda call: (call(), next(spans))[1])
    monkeypatch.setattr(study, "train_classifier", lambda *given, samples: learnt.append(samples))
    monkeypatch.setattr(study, "feature_network", lambda spec: Judge())
    config = replace(TINY, evaluation=replace(TINY.evaluation, classifier_samples=6400))
    subject = study._subject(config, 3, CPU, phases.Data(300, 40, 2))
    assert study._judging(subject) == pytest.approx(8 / 64 * phases.judged(config, subject.data) + 30)
    monkeypatch.setattr(study, "feature_network", lambda spec: None)
    few = replace(config, evaluation=replace(config.evaluation, classifier_samples=100))
    assert study._judging(replace(subject, config=few)) == pytest.approx(3.0) and learnt == [640, 100]
