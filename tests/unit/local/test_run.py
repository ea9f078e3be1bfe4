"""`halvard run` with real processes."""

import csv
import signal
from pathlib import Path
from typing import Any

import pytest

from halvard.starting import LOOK_AHEAD
from unit.local.conftest import Workshop


def test_a_study_runs_to_its_end_and_finds_the_smallest_x(finished: Any) -> None:
    smallest = min(finished.trials(), key=lambda trial: trial["spec"]["parameters"]["x"])
    x = smallest["spec"]["parameters"]["x"]
    expected = {"trial": smallest["metadata"]["name"], "value": x + 1 / 9, "budget": 9, "parameters": {"x": x}}
    assert expected == finished.status()["best"]
    assert finished.status()["state"] == "Complete"


def test_the_table_has_a_row_for_each_trial_with_its_parameters_and_the_value_at_each_rung(finished: Any) -> None:
    with (finished.results / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    header = ["trial", "index", "state", "attempt", "budget", "seconds", "value", "x", "value@1", "value@3", "value@9"]
    assert header == list(rows[0])
    assert [trial["spec"]["parameters"]["x"] for trial in finished.trials()] == [float(row["x"]) for row in rows]
    assert [float(row["x"]) + 1 for row in rows] == [float(row["value@1"]) for row in rows]


def test_a_hot_promotion_goes_on_in_the_same_process(finished: Any) -> None:
    steps_of: dict[int, list[int]] = {}
    for _, step, process in finished.steps():
        steps_of.setdefault(process, []).append(step)

    expected = sorted(list(range(leg["start"] + 1, leg["budgets"][-1] + 1)) for leg in finished.legs())
    assert expected == sorted(steps_of.values())
    assert sum(len(leg["budgets"]) - 1 for leg in finished.legs()) == 3


def test_a_paused_trial_that_is_promoted_later_resumes_from_its_checkpoint(finished: Any) -> None:
    steps = [(trial, step) for trial, step, _ in finished.steps()]
    assert len(steps) == len(set(steps)), "a step was trained twice"
    assert sum(leg["start"] > 0 for leg in finished.legs()) == 2


def test_a_trainer_that_exits_with_an_error_fails_its_trial_with_its_last_words(workshop: Any) -> None:
    done = workshop.run(workshop.manifest(env={"EXIT_1": "2"}, limits={"trials": 3}))

    status = workshop.trials()[2]["status"]
    assert (
        status["state"],
        status["message"],
    ) == ("Failed", "NonZeroExit: exit code 1. Its last words: no such file: data.csv")
    assert (done.returncode, workshop.status()["state"]) == (0, "Complete")


def test_an_exit_code_that_fails_the_study_ends_the_run(workshop: Any) -> None:
    rule = {"action": "FailStudy", "onExitCodes": {"operator": "In", "values": [1]}}
    done = workshop.run(workshop.manifest(env={"EXIT_1": "2"}, limits={"trials": 9}, failurePolicy={"rules": [rule]}))

    assert (done.returncode, workshop.status()["state"]) == (1, "Failed")
    assert "failurePolicy: FailStudy" in done.stdout


def test_a_trainer_that_exits_without_a_report_is_metrics_unavailable(workshop: Any) -> None:
    workshop.run(workshop.manifest(env={"SILENT": "1"}, limits={"trials": 2}))

    status = workshop.trials()[1]["status"]
    message = "MetricsUnavailable: the trainer exited with code 0 but reported no loss at step 1 or beyond"
    assert ("Failed", message) == (status["state"], status["message"])


def test_a_trial_that_reports_another_metric_fails_with_the_name_of_that(workshop: Any) -> None:
    manifest = workshop.manifest(limits={"trials": 1})
    script = """echo '{"step": 1, "accuracy": 1}' >> $HALVARD_REPORTS"""
    manifest["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-c", script]
    workshop.run(manifest)

    message = workshop.trials()[0]["status"]["message"]
    assert message.endswith("reported no loss at step 1 or beyond; its last report was of accuracy at step 1")


def test_a_loss_that_is_not_a_number_is_the_worst_and_never_promoted(workshop: Any) -> None:
    workshop.run(workshop.manifest(env={"NAN": "0,1,2"}, limits={"trials": 6}))

    not_finite = [trial for trial in workshop.trials()[:3] if trial["status"]["rungs"][0].get("value") is None]
    assert [trial["spec"]["budget"] for trial in not_finite] == [1, 1, 1]
    assert [trial["status"]["state"] for trial in not_finite] == ["Paused"] * 3
    assert workshop.status()["state"] == "Complete"


def test_a_study_of_failing_trainers_fails_and_says_so(workshop: Any) -> None:
    done = workshop.run(workshop.manifest(env={"SILENT": "0,1,2,3"}, limits={"trials": 9, "failedTrials": 3}))

    assert (done.returncode, workshop.status()["state"]) == (1, "Failed")
    assert "4 trials failed; limits.failedTrials is 3" in done.stdout


def test_a_trainer_that_will_not_stop_is_killed_after_its_grace(workshop: Any) -> None:
    done = workshop.run(workshop.manifest(env={"STUBBORN": "0"}, limits={"trials": 3}))

    assert done.returncode == 0
    assert not Path(f"/proc/{workshop.steps()[0][2]}").exists()


def test_reports_are_read_from_standard_output_by_a_pattern(workshop: Any) -> None:
    manifest = workshop.manifest(
        collector={"stdout": {"pattern": r"epoch (?P<step>\d+) loss (?P<loss>\S+)"}}, limits={"trials": 4}
    )
    script = "for i in $(seq $HALVARD_BUDGET); do echo epoch $i loss 0.$HALVARD_SEED$i; done; echo epochs done"
    manifest["spec"]["template"]["spec"]["containers"][0] |= {"command": ["sh", "-c"], "args": [script]}
    done = workshop.run(manifest)

    assert (done.returncode, done.stderr) == (0, "")
    assert [trial["status"]["rungs"][0]["step"] for trial in workshop.trials()] == [1, 1, 1, 1]


def test_a_killed_run_goes_on_to_stop_the_same_trials_at_the_same_reports(workshop: Any, tmp_path: Path) -> None:
    spec = {"scheduler": {"median": {"budget": 5, "trials": 1}}, "limits": {"trials": 6}}
    done = workshop.run(workshop.manifest(**spec, env={"SECONDS_A_STEP": "0.05"}))
    assert (done.returncode, done.stderr) == (0, "")
    assert "stopped   the best value by step 1, " in done.stdout
    stopped = [trial["status"] for trial in workshop.trials() if trial["status"]["state"] == "Stopped"]
    assert len(stopped) > 1
    assert all(status["lost"]["seconds"] > 0 for status in stopped)

    (tmp_path / "another").mkdir()
    killed = Workshop(tmp_path / "another")
    manifest = killed.manifest(**spec, env={"SECONDS_A_STEP": "0.05"})
    runner = killed.interrupt(manifest, signal.SIGKILL, after=8)
    assert runner.returncode == -signal.SIGKILL, "it had ended before it was killed"
    done = killed.run(manifest)
    assert (done.returncode, done.stderr) == (0, "")
    assert killed.decisions() == workshop.decisions()
    assert curves(killed) == curves(workshop)


def curves(workshop: Any) -> list[Any]:
    return [trial["status"]["curve"] for trial in workshop.trials()]


@pytest.mark.parametrize("after", [2, 9, 15])
def test_a_killed_run_goes_on_with_the_decisions_of_an_undisturbed_one(
    workshop: Any, finished: Any, after: int
) -> None:
    manifest = workshop.manifest(env={"SECONDS_A_STEP": "0.05"})
    runner = workshop.interrupt(manifest, signal.SIGKILL, after=after)
    assert runner.returncode == -signal.SIGKILL, "it had ended before it was killed"
    done = workshop.run(manifest)

    trained = [(trial, step) for trial, step, _ in workshop.steps()]
    assert (done.returncode, done.stderr) == (0, "")
    assert finished.decisions() == workshop.decisions()
    assert len(trained) - len(set(trained)) <= 1, "more than the step that was not reported was trained twice"


def test_the_trainers_of_a_killed_run_do_not_go_on_training(workshop: Any) -> None:
    manifest = workshop.manifest(env={"STUBBORN": "0,1,2,3,4,5,6,7,8", "SECONDS_A_STEP": "0.05"})
    workshop.interrupt(manifest, signal.SIGKILL, after=1)
    orphan = workshop.steps()[0][2]
    assert Path(f"/proc/{orphan}").exists()

    workshop.run({**manifest, "spec": {**manifest["spec"], "suspend": True}})

    stat = Path(f"/proc/{orphan}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("after", [3, 15])
def test_an_interrupted_run_ends_its_trainers_and_the_same_command_goes_on(
    workshop: Any, finished: Any, after: int
) -> None:
    manifest = workshop.manifest(env={"SECONDS_A_STEP": "0.05"})
    runner = workshop.interrupt(manifest, signal.SIGINT, after=after)
    assert (runner.returncode, workshop.status()["state"]) == (130, "Suspended")
    assert not Path(f"/proc/{workshop.steps()[-1][2]}").exists()

    done = workshop.run(manifest)

    assert (done.returncode, workshop.status()["state"]) == (0, "Complete")
    assert finished.decisions() == workshop.decisions()
    assert [trial["status"]["faults"] for trial in workshop.trials()] == [0] * 9


def test_a_finished_study_is_only_summed_up_again(workshop: Any) -> None:
    manifest = workshop.manifest(limits={"trials": 1})
    first = workshop.run(manifest)
    steps = workshop.steps()

    again = workshop.run(manifest)

    assert (0, steps) == (again.returncode, workshop.steps())
    assert first.stdout[first.stdout.index("\nrung ") :] == again.stdout[again.stdout.index("\nrung ") :]


def test_a_changed_search_is_refused_by_the_name_of_its_field(workshop: Any) -> None:
    workshop.run(workshop.manifest(limits={"trials": 1}))

    done = workshop.run(workshop.manifest(limits={"trials": 1}, seed=2))

    assert done.returncode == 2
    assert done.stderr.startswith("spec.seed: seed cannot be changed once the study has started")


def test_a_second_run_in_the_same_directory_is_refused(workshop: Any) -> None:
    from halvard.local.store import Store  # noqa: PLC0415  # only here

    store = Store(workshop.results)
    done = workshop.run(workshop.manifest())
    store.close()

    assert (2, f"{workshop.results}: another `halvard run` is at work in this directory\n") == (
        done.returncode,
        done.stderr,
    )


@pytest.mark.parametrize("damaged", ["study.yaml", "trials/study-0000.json"])
def test_a_damaged_record_is_named(workshop: Any, damaged: str) -> None:
    path = workshop.results / damaged
    path.parent.mkdir(parents=True)
    path.write_text("{")
    done = workshop.run(workshop.manifest())

    assert done.returncode == 2
    assert done.stderr.startswith(f"{path}: ")


def test_a_bad_manifest_is_refused_with_every_error(workshop: Any) -> None:
    done = workshop.run(workshop.manifest(objective={"metric": "loss", "goal": "smaller"}, parallelism=-1))

    assert done.returncode == 2
    assert "spec.objective.goal" in done.stderr
    assert "spec.parallelism" in done.stderr


def test_a_command_that_is_no_program_is_refused_before_anything_starts(workshop: Any) -> None:
    manifest = workshop.manifest()
    manifest["spec"]["template"]["spec"]["containers"][0]["command"] = ["trian"]
    done = workshop.run(manifest)

    message = "spec.template.spec.containers[trainer].command: 'trian' is not a program on this machine\n"
    assert (2, message) == (done.returncode, done.stderr)


def test_no_two_trials_share_a_gpu_and_the_rest_wait(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = workshop.folder / "locks"
    locks.mkdir()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    manifest = workshop.manifest(env={"LOCKS": str(locks), "SECONDS_A_STEP": "0.01"}, parallelism=4)
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 1}}
    workshop.run(manifest)

    assert workshop.status()["trials"]["failed"] == 0
    assert {"5", "7"} == {device for leg in workshop.legs() for device in leg["devices"]}


def test_few_trials_wait_for_a_gpu_however_large_parallelism_is(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    ladder = {"asha": {"minBudget": 9, "maxBudget": 27, "reductionFactor": 3}}
    crowd = {"parallelism": 100, "limits": {"trials": 50}, "scheduler": ladder}
    manifest = workshop.manifest(env={"SECONDS_A_STEP": "0.3"}, **crowd)
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 1}}
    workshop.interrupt(manifest, signal.SIGTERM, after=4)
    assert (len(workshop.legs()), len(workshop.trials())) == (2, 2 + LOOK_AHEAD)


def test_a_request_for_gpus_is_ignored_with_a_notice_where_there_are_none(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    manifest = workshop.manifest(limits={"trials": 1})
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 1}}
    done = workshop.run(manifest)

    assert done.returncode == 0
    assert done.stdout.count("no GPU on this machine: the request for nvidia.com/gpu is ignored") == 1


def test_what_holds_only_here_or_only_in_a_cluster_is_said(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    manifest = workshop.manifest(limits={"trials": 1, "gpuHours": 1})
    manifest["spec"]["template"]["spec"]["hostNetwork"] = True
    done = workshop.run(manifest)

    assert done.returncode == 0
    assert "note: a cluster may not take this template: spec.hostNetwork: true is not allowed here;" in done.stdout
    assert "note: no trial holds a GPU here: limits.gpuHours is never used up\n" in done.stdout


def test_a_study_that_may_not_run_anything_ends_at_once_and_says_why(workshop: Any) -> None:
    done = workshop.run(workshop.manifest(parallelism=0))

    assert done.returncode == 1
    assert "nothing runs: spec.suspend is true or spec.parallelism is 0" in done.stdout
