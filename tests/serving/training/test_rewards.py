from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from instructmining import KnnOptions, Scorer
from instructmining.errors import InputError, MissingRoleError, RuleError, SelectionError
from instructmining.inference.devices import Device
from instructmining.rules import Rule
from instructmining_serving.training import RewardFunction, TrainingScorer, scorers


def test_rewards_are_the_numbers_of_score_whatever_else_is_in_the_batch(
    small_bundle: Path, prompts: list[str], completions: list[str], scored: dict[str, list[float]]
) -> None:
    reward = RewardFunction(small_bundle, device="cpu")
    assert reward(prompts=prompts, completions=completions) == pytest.approx(scored["reward"], abs=1e-5)
    assert reward(prompts=prompts[1:], completions=completions[1:]) == pytest.approx(scored["reward"][1:], abs=1e-5)
    assert reward(prompts=prompts[:1], completions=completions[:1]) == pytest.approx(scored["reward"][:1], abs=1e-5)
    assert reward(prompts=[], completions=[]) == []


def test_messages_give_the_rewards_of_their_texts(
    scorer: Scorer, prompts: list[str], completions: list[str], scored: dict[str, list[float]]
) -> None:
    found = RewardFunction(scorer)(
        prompts=[[{"role": "user", "content": text}] for text in prompts],
        completions=[[{"role": "assistant", "content": text, "reasoning_content": "hm"}] for text in completions],
        completion_ids=[[1]] * len(prompts),
        trainer_state=object(),
        log_metric=print,
    )
    assert found == pytest.approx(scored["reward"], abs=1e-5)


@pytest.mark.parametrize(("lower_is_better", "sign"), [(None, 1), (True, -1)])
def test_any_column_is_a_reward_and_can_be_negated(
    scorer: Scorer,
    prompts: list[str],
    completions: list[str],
    scored: dict[str, list[float]],
    lower_is_better: bool | None,
    sign: int,
) -> None:
    reward = RewardFunction(scorer, "perplexity", lower_is_better=lower_is_better)
    assert reward.__name__ == "instructmining_perplexity"
    found = reward(prompts=prompts, completions=completions)
    assert found == pytest.approx([sign * value for value in scored["perplexity"]], rel=1e-5)


def test_a_predicted_loss_is_negated_since_lower_is_better(
    small_bundle: Path, prompts: list[str], completions: list[str], scored: dict[str, list[float]]
) -> None:
    rule = Rule("mine", 1.0, {"reward": -0.5})
    reward = RewardFunction(small_bundle, "predicted_log_loss", rule=rule, device="cpu")
    found = reward(prompts=prompts, completions=completions)
    assert found == pytest.approx([0.5 * value - 1 for value in scored["reward"]], abs=1e-5)


def test_a_completion_without_a_value_has_no_reward_or_the_one_it_is_given(scorer: Scorer) -> None:
    asked = {"prompts": ["Go on."] * 3, "completions": ["", "Yes, of course.", None]}
    none, some, null = RewardFunction(scorer)(**asked)  # type: ignore[arg-type]
    assert (none, null) == (None, None)
    assert some is not None
    assert RewardFunction(scorer, unscored=-5.0)(**asked) == [-5.0, some, -5.0]  # type: ignore[arg-type]


def test_rows_that_fail_a_condition_are_left_out_of_their_group(
    scorer: Scorer, prompts: list[str], completions: list[str], scored: dict[str, list[float]]
) -> None:
    least = sorted(scored["output_length"])[1]
    reward = RewardFunction(scorer, where=f"output_length>{least:g}", unscored=-1.0)
    found = reward(prompts=prompts, completions=completions)
    wanted = [
        value if length > least else None
        for value, length in zip(scored["reward"], scored["output_length"], strict=True)
    ]
    assert wanted.count(None) in {1, 2}
    for one, other in zip(found, wanted, strict=True):
        assert one == (None if other is None else pytest.approx(other, abs=1e-5))


def test_a_reward_is_pickled_as_its_settings_and_opens_its_models_anew(
    small_bundle: Path, prompts: list[str], completions: list[str], scored: dict[str, list[float]]
) -> None:
    reward = RewardFunction(TrainingScorer(small_bundle, indicators="reward", device="cpu"))
    before = pickle.dumps(reward)
    reward(prompts=prompts, completions=completions)
    assert pickle.dumps(reward) == before
    copy = pickle.loads(before)
    reward.scorer.close()
    assert copy.__name__ == "instructmining_reward"
    assert copy(prompts=prompts, completions=completions) == pytest.approx(scored["reward"], abs=1e-5)
    copy.scorer.close()


def test_a_copy_of_a_reward_over_an_open_scorer_does_not_need_it(
    small_bundle: Path, prompts: list[str], completions: list[str], scored: dict[str, list[float]]
) -> None:
    with Scorer.open(small_bundle, indicators="reward", device="cpu") as scorer:
        copy = pickle.loads(pickle.dumps(RewardFunction(scorer)))
    assert copy(prompts=prompts, completions=completions) == pytest.approx(scored["reward"], abs=1e-5)


def test_closing_a_reward_leaves_a_scorer_that_was_given_open(scorer: Scorer) -> None:
    reward = RewardFunction(scorer)
    reward(prompts=["Go."], completions=["Yes, at once."])
    reward.scorer.close()
    assert len(list(scorer.score([{"prompt": "Go.", "response": "Yes."}]))) == 1


def test_what_cannot_be_a_reward_is_refused_at_once(small_bundle: Path, scorer: Scorer) -> None:
    with pytest.raises(RuleError, match="'rewrad'"):
        RewardFunction(small_bundle, "rewrad")
    with pytest.raises(MissingRoleError, match="unieval"):
        RewardFunction(small_bundle, "naturalness")
    with pytest.raises(RuleError, match=r"knn_6 needs the neighbours of each row.* knn_against"):
        RewardFunction(small_bundle, "knn_6")
    with pytest.raises(RuleError, match=r"'ifd'.*name it in its indicators"):
        RewardFunction(scorer, "ifd")
    with pytest.raises(RuleError, match="has its rule and its device"):
        RewardFunction(scorer, device="cuda")
    with pytest.raises(SelectionError, match="wanted NAME OP VALUE"):
        RewardFunction(scorer, where="reward")
    with pytest.raises(InputError, match="1 prompts and 2 completions"):
        RewardFunction(scorer)(prompts=["a"], completions=["b", "c"])


def test_a_bundle_for_the_prediction_has_a_rule(small_bundle: Path, prompts: list[str], tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text(
        "".join(json.dumps({"instruction": f"Name {n}.", "output": f"It is {n}."}) + "\n" for n in range(9))
    )
    scorer = TrainingScorer(small_bundle, rule="paper-v1", device="cpu", knn_against=str(pool))
    reward = RewardFunction(scorer, "predicted_log_loss")
    asked = {"prompts": prompts, "completions": ["It is a colour, and so is red."] * len(prompts)}
    whole = reward(**asked)
    assert None not in whole
    alone = [reward(prompts=[prompt], completions=asked["completions"][:1])[0] for prompt in prompts]
    assert whole == pytest.approx(alone, abs=1e-5)
    scorer.close()


def test_an_open_scorer_whose_neighbours_are_the_runs_own_rows_is_refused(small_bundle: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps({"prompt": f"Say {n}.", "response": f"It is {n}."}) + "\n" for n in range(9)))
    own = Scorer.open(small_bundle, indicators="knn_6", device="cpu")
    with own as scorer, pytest.raises(RuleError, match="knn_6 needs the neighbours of each row"):
        RewardFunction(scorer, "knn_6")
    with Scorer.open(small_bundle, indicators="knn_6", device="cpu", knn=KnnOptions(against=str(pool))) as scorer:
        (wanted,) = scorer.score([{"prompt": "Go.", "response": "Yes, at once."}])
        (found,) = RewardFunction(scorer, "knn_6")(prompts=["Go."], completions=["Yes, at once."])
    assert found == pytest.approx(wanted.columns["knn_6"], abs=1e-5)


@pytest.mark.parametrize(("problem", "device"), [(None, "cuda:3"), ("no such device", "auto")])
def test_by_default_a_process_takes_the_gpu_of_its_rank_where_that_works(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, problem: str | None, device: str
) -> None:
    opened: list[str] = []

    def note(_: object, *, device: str, **__: object) -> None:
        opened.append(device)
        raise RuleError("enough")

    monkeypatch.setattr(Scorer, "open", note)
    monkeypatch.setattr(scorers, "choose_devices_for", lambda *_: (Device("cuda"),))
    monkeypatch.setattr(scorers, "cuda_problem", lambda _: problem)
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(RuleError, match="enough"):
        RewardFunction(small_bundle)(prompts=["a"], completions=["b"])
    assert opened == [device]


def test_a_process_that_was_forked_opens_models_of_its_own(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Scorer] = []
    own = TrainingScorer(small_bundle, indicators="reward", device="cpu")
    reward = RewardFunction(own)
    asked = {"prompts": ["Go."], "completions": ["Yes, at once."]}
    before = reward(**asked)
    begun = Scorer.open

    def note(*given: Any, **options: Any) -> Scorer:  # noqa: ANN401
        opened.append(begun(*given, **options))
        return opened[-1]

    monkeypatch.setattr(Scorer, "open", note)
    reward(**asked)
    assert not opened
    with monkeypatch.context() as child:
        child.setattr(scorers.os, "getpid", lambda: 1)
        assert reward(**asked) == pytest.approx(before)
        assert len(opened) == 1
        own.close()


def test_on_cuda_each_process_takes_the_device_of_its_rank(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def note(_: object, *, device: str, **__: object) -> None:
        opened.append(device)
        raise RuleError("enough")

    monkeypatch.setattr(Scorer, "open", note)
    for asked, rank in (("cuda", "3"), ("cuda", ""), ("cuda:1", "3"), ("cpu", "3"), ("auto", "3")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(RuleError, match="enough"):
            RewardFunction(small_bundle, device=asked)(prompts=["a"], completions=["b"])
    assert opened == ["cuda:3", "cuda", "cuda:1", "cpu", "auto"]


def test_training_needs_neither_fastapi_nor_torch() -> None:
    code = "import sys, instructmining_serving.training; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "fastapi", "starlette", "trl", "datasets"} & set(done.stdout.splitlines())
