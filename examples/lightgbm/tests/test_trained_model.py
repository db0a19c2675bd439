"""Ours, not LightGBM's, whose sdist has none: a model trained here gives known numbers."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np

ROWS = 2000


def data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A step in one feature, a slope in another, a third that means nothing, little noise."""
    generator = np.random.default_rng(seed)
    features = generator.uniform(-1, 1, (ROWS, 3))
    target = np.where(features[:, 0] > 0.25, 3.0, -1.0) + 2.0 * features[:, 1]
    return features, target + generator.normal(scale=0.05, size=ROWS)


def trained(**parameters: object) -> lgb.Booster:
    features, target = data(0)
    settings = {"objective": "regression", "verbose": -1, "deterministic": True, "seed": 1}
    return lgb.train({**settings, **parameters}, lgb.Dataset(features, target), 200)


def test_it_is_the_installed_library() -> None:
    assert lgb.__version__ == "4.6.0"
    assert lgb.__file__.startswith("/usr/lib/python3/dist-packages/lightgbm/")


def test_the_model_beats_the_mean_by_far_on_data_it_has_not_seen() -> None:
    features, target = data(1)
    error = np.mean((trained().predict(features) - target) ** 2)
    assert error < 0.02 * np.var(target)


def test_the_step_is_found_where_it_is() -> None:
    model = trained()
    below, above = model.predict(np.array([[0.15, 0.0, 0.0], [0.35, 0.0, 0.0]]))
    np.testing.assert_allclose([below, above], [-1.0, 3.0], atol=0.15)


def test_the_feature_that_means_nothing_has_the_least_gain() -> None:
    gain = trained().feature_importance("gain")
    assert gain[2] < 0.01 * gain[:2].min()


def test_one_stump_is_the_best_split_that_numpy_finds() -> None:
    features, target = data(0)
    model = trained(num_leaves=2, learning_rate=1.0, max_bin=1023, min_data_in_bin=1)
    stump = model.predict(features, num_iteration=1)
    order = np.argsort(features[:, 0])
    sums = np.cumsum(target[order])[:-1]
    left = np.arange(1, ROWS)
    gain = sums**2 / left + (target.sum() - sums) ** 2 / (ROWS - left)
    cut = int(np.argmax(gain)) + 1
    means = [target[order[:cut]].mean(), target[order[cut:]].mean()]
    np.testing.assert_allclose(np.unique(np.round(stump, 3)), np.round(means, 3), atol=0.02)


def test_a_saved_model_predicts_the_same() -> None:
    features, _ = data(1)
    model = trained()
    again = lgb.Booster(model_str=model.model_to_string())
    np.testing.assert_array_equal(model.predict(features), again.predict(features))


def test_one_and_two_threads_agree() -> None:
    features, _ = data(1)
    one, two = trained(num_threads=1), trained(num_threads=2)
    np.testing.assert_allclose(one.predict(features), two.predict(features), rtol=1e-6)
