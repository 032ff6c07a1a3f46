"""The config of flow matching."""

from score_sde.config.config import config_path, read_config, resolve

ITS_OWN = {"sde.name", "model.parametrization", "training.loss_weighting", "training.time_distribution",
           "training.time_mean", "training.time_std"}  # fmt: skip


def test_digits_flow_is_digits_but_for_the_keys_of_flow_matching():
    flow, digits = (
        {f"{section}.{key}": value for section, keys in found.to_dict().items() for key, value in keys.items()}
        for found in (resolve(read_config(config_path(name)), []) for name in ("digits_flow", "digits"))
    )
    names = {key for key in flow.keys() | digits.keys() if flow.get(key) != digits.get(key)}
    assert names >= ITS_OWN
    # The other keys of the two processes are not the experiment's.
    assert {key for key in names - ITS_OWN if not key.startswith("sde.")} == set()
    assert flow["sde.name"] == flow["model.parametrization"] == flow["training.loss_weighting"] == "flow"
