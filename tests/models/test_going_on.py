"""A fit that goes on from a former run on a further log: its first weights, a run folder that is
stopped and resumed, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastgaum.cli.app import main
from fastgaum.config import Config
from fastgaum.errors import CheckpointError, ConfigError, FeatureMismatchError, LogFormatError
from fastgaum.interrupts import Interrupted
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.fold import to_frame
from fastgaum.logs.log import TRAIN, SessionLog
from fastgaum.models.run_folder import resume_run, run_checkpoint, train_run
from fastgaum.models.user_model import UserModel
from tests.builders import put, random_log
from tests.features.test_grown import in_two
from tests.game.interrupted import StopAt, check_same
from tests.logs.test_context import navigation
from tests.models.test_own_code import SumOfAll

TINY: dict[str, Any] = {
    **{"epochs": 2, "warm_start": 2, "hidden": [4], "history_dim": 3, "search": [], "folds": 0},
    **{"batch_sessions": 16, "device": "cpu"},
}


@pytest.fixture(scope="module")
def logs() -> tuple[SessionLog, SessionLog]:
    """Two logs, of which either has items that the other lacks."""
    return in_two(random_log(4, n_sessions=120, n_items=90, no_click=0.2), 40, 0)


def run_on(log: SessionLog, folder: Path, **changes: Any) -> Path:
    train_run(UserModel.from_preset(**{**TINY, **changes}), log, folder)
    return folder


@pytest.fixture(scope="module")
def former(logs: tuple[SessionLog, SessionLog], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_on(logs[0], tmp_path_factory.mktemp("runs") / "former")


@pytest.mark.parametrize(
    ("changes", "log"),
    [
        ({"history": "lstm"}, random_log(1, 120, 90)),
        # position weights read two unknown choices as one item twice: here there is but one
        ({"history": "pw", "wide": False}, random_log(1, 120, 90, max_length=2)),
        ({"tower_dim": 4, "history_layers": 2}, navigation(120, n_items=300, seed=1)),
    ],
    ids=["lstm", "pw", "towers, context"],
)
def test_the_first_weights_say_what_the_former_model_says(
    changes: dict[str, Any], log: SessionLog, tmp_path: Path
) -> None:
    """Bags of ids alone: new items and values are unknown to both."""
    first, second = in_two(log, 30, 0)
    model = UserModel.from_preset(**{**TINY, "protocol": "identity", "relations": False} | changes)
    model.fit(first)
    model.save(tmp_path / "model.safetensors")
    said = model.evaluate(second, "validation").heads["reward"].nll.mean
    # too small to move a weight
    rates = {"lr": 1e-30, "generator_lr": 1e-30}
    further = UserModel.from_run(tmp_path / "model.safetensors", device="cpu", **rates)
    row = further.fit(second).row(0, named=True)
    assert row["phase"] == "start"
    assert row["best"]
    np.testing.assert_allclose(row["val_loss"], said, rtol=1e-3)
    again = further.evaluate(second, "validation").heads["reward"].nll.mean
    np.testing.assert_allclose(again, said, rtol=1e-6)
    assert further.space is not None
    assert model.space is not None
    assert further.space.n_ids > model.space.n_ids


def test_weights_stay_where_no_epoch_is_better(
    former: Path, logs: tuple[SessionLog, SessionLog]
) -> None:
    """What the model knew before its training sessions is not kept: they are not scored."""
    start = UserModel.load(former, device="cpu").networks
    rates = {"lr": 100.0, "generator_lr": 100.0, "weight_decay": 0.0}
    further = UserModel.from_run(former, device="cpu", **rates)
    assert further.fit(logs[1]).filter("best")["phase"].to_list() == ["start"]
    assert further.predict(logs[1], "test").height
    with pytest.raises(ConfigError, match=r"the counts that it had before .* are not kept"):
        further.predict(logs[1])
    assert start is not None
    assert further.networks is not None
    now = further.networks.player.reward.rest.state_dict()
    for name, was in start.player.reward.rest.state_dict().items():
        assert torch.equal(was, now[name])


def test_a_stopped_run_goes_on_to_the_same_bytes(
    former: Path, logs: tuple[SessionLog, SessionLog], tmp_path: Path
) -> None:
    """It needs the former run no more; its card says what trained it."""
    train_run(UserModel.from_run(former, device="cpu"), logs[1], tmp_path / "whole")
    folder = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        train_run(
            UserModel.from_run(former, device="cpu"),
            logs[1],
            folder,
            observers=[StopAt(3)],
        )
    checkpoint = run_checkpoint(folder)
    assert checkpoint is not None
    resume_run(UserModel(checkpoint.config, device="cpu"), logs[1], folder)
    check_same(tmp_path / "whole", folder)
    items = {item for log in logs for item in shown_in_training(log)}
    sessions = sum(len(log.sessions_in("train")) for log in logs)
    said = f"{sessions} sessions and {len(items)} displayed items"
    for run in ("whole", "stopped"):
        card = (tmp_path / run / "README.md").read_text(encoding="utf-8")
        assert (
            f"| began as | a run (--from) on the log with the fingerprint `{logs[0].fingerprint}`"
            in card
        )
        assert said in card
    assert "began as" not in (former / "README.md").read_text(encoding="utf-8")


def shown_in_training(log: SessionLog) -> list[str]:
    """Ids of the items of training displays, one by one."""
    shown = log.split[log.session_of_event[log.event_of_candidate()]] == TRAIN
    return log.item_ids.gather(log.items[shown]).to_list()


def test_a_run_of_folds_goes_on_as_one_fit(
    logs: tuple[SessionLog, SessionLog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first weights are those without fold 0, its validation the further log's own; the log of
    the run is refused in another order of its sessions too."""
    folder = run_on(logs[0], tmp_path / "folds", folds=2, epochs=1, warm_start=1)
    started: list[UserModel] = []
    monkeypatch.setattr(
        "fastgaum.models.user_model._start_from", lambda *given: started.append(given[2])
    )
    further = UserModel.from_run(folder, device="cpu")
    train_run(further, logs[1], tmp_path / "further")
    assert started == [further.start]
    assert further.start is not None
    assert len(further.start.members) == 1
    again = UserModel.load(tmp_path / "further", device="cpu")
    assert again.space is not None
    assert (again.space.folds, again.members) == (0, ())
    assert again.space.trained.users.size > logs[1].count("sessions", "train")
    said = again.evaluate(logs[1], "validation").heads["reward"].nll.mean
    assert said == pytest.approx(further.evaluate(logs[1], "validation").heads["reward"].nll.mean)
    backwards = slice_sessions(logs[0], np.arange(logs[0].n_sessions)[::-1].astype(np.int32))
    for log in (logs[0], backwards):
        with pytest.raises(LogFormatError, match="is the one that the model was trained on"):
            UserModel.from_run(folder, device="cpu").fit(log)


def test_what_cannot_go_on_is_refused(
    former: Path, logs: tuple[SessionLog, SessionLog], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"protocol = bags, not identity.*may change is warm"):
        UserModel.from_run(former, protocol="identity")
    with pytest.raises(ConfigError, match="folds = 0, not 5, and its networks go on"):
        UserModel.from_run(former, folds=5)
    with pytest.raises(ConfigError, match="unknown configuration key 'epoch'; did you mean"):
        UserModel.from_run(former, epoch=3)
    with pytest.raises(CheckpointError, match="no model at"):
        UserModel.from_run(tmp_path / "none")
    further = UserModel.from_run(former, device="cpu")
    with pytest.raises(LogFormatError, match="is the one that the model was trained on"):
        further.fit(logs[0])
    priced = put(logs[1], candidate={"price": np.ones(logs[1].n_candidates, np.float32)})
    with pytest.raises(FeatureMismatchError, match=r"extra \['price'\]"):
        further.fit(priced)


def test_no_click_is_no_new_choice_and_stays_one(
    former: Path, logs: tuple[SessionLog, SessionLog], tmp_path: Path
) -> None:
    always = [in_two(random_log(seed, n_sessions=60, n_items=30), 30, 0)[0] for seed in (4, 5)]
    model, file = UserModel.from_preset(**TINY), tmp_path / "model.safetensors"
    model.fit(always[0])
    model.save(file)
    with pytest.raises(ConfigError, match="has events without a choice, and the run"):
        UserModel.from_run(file, device="cpu").fit(logs[1])
    further = UserModel.from_run(file, device="cpu", no_click="always")
    with pytest.raises(ConfigError, match="no_click = always makes no click a choice, and the run"):
        further.fit(always[1])
    for changes, no_click in (({}, "always"), ({"no_click": "never"}, "never")):
        further = UserModel.from_run(former, device="cpu", **changes)
        further.fit(always[1])
        assert further.outside == (no_click == "always")
        assert further.config.no_click == no_click


def test_an_encoder_of_ones_own_goes_on_if_it_can(
    logs: tuple[SessionLog, SessionLog], tmp_path: Path
) -> None:
    class Fixed(SumOfAll):
        """Has a weight whose shape follows the ids, and is no row of one."""

        def __init__(self, config: Config, n_ids: int, n_numbers: int) -> None:
            super().__init__(config, n_ids, n_numbers)
            self.other = torch.nn.Parameter(torch.zeros(2, n_ids))

    for encoder in (SumOfAll, Fixed):
        model, file = UserModel.from_preset(**TINY, history=encoder), tmp_path / "own.safetensors"
        model.fit(logs[0])
        model.save(file)
        further = UserModel.from_run(file, history=encoder, device="cpu")
        if encoder is SumOfAll:
            assert further.fit(logs[1])["phase"][0] == "start"
        else:
            with pytest.raises(ConfigError, match=r"weight 'player.history.other' has the shape"):
                further.fit(logs[1])


def test_the_command_takes_over_what_the_run_says(
    logs: tuple[SessionLog, SessionLog], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, log in zip(("first", "second"), logs, strict=True):
        to_frame(log).rename({"item": "sku"}).write_parquet(tmp_path / f"{name}.parquet")
    names = ("first.parquet", "second.parquet", "run", "further", "logit", "no")
    first, second, run, further, logit, no = (str(tmp_path / name) for name in names)
    short = [
        f"--set={key}" for key in ("epochs=1", "warm_start=1", "hidden=[4]", "search=[]", "folds=0")
    ]
    assert main(["train", first, "-o", run, "--column", "item=sku", "--quiet", *short]) == 0
    assert main(["train", second, "-o", further, "--from", run, "--seed", "5"]) == 0
    assert "epoch   1 start " in capsys.readouterr().err
    config = UserModel.load(further, device="cpu").config
    assert (config.hidden, config.seed) == ((4,), 5)
    assert main(["evaluate", further, second, "--quiet"]) == 0
    assert main(["train", first, "-o", logit, "--column=item=sku", "--preset", "click-rate"]) == 0
    for text, start, options in (
        ("names another", run, ["--preset", "paper-lstm"]),
        ("give one of them", run, ["--resume"]),
        ("not [8]", run, ["--set", "hidden=[8]"]),
        ("is fitted in one go and cannot go on", logit, []),
    ):
        capsys.readouterr()
        assert main(["train", second, "-o", no, "--from", start, *options]) == 2
        assert text in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
