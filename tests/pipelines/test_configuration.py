import copy
import dataclasses
import functools
import json
import math
import operator

import pydantic
import pytest

from components import settings
from marco_model.errors import InputError
from pipelines import configuration


@pytest.mark.parametrize("name", configuration.preset_names())
def test_every_preset_loads_and_opens_with_its_command(name):
    assert configuration.load(name).name == f"marco-{name}"
    assert f"--preset {name}" in (configuration.PRESETS / f"{name}.yaml").read_text().split("\nname:")[0]


def test_the_paper_preset_holds_the_published_recipe():
    recipe = configuration.load("paper").recipe
    assert recipe.steps * recipe.batch_size == pytest.approx(100e6, rel=0.1)
    assert (recipe.learning_rate, recipe.momentum, recipe.rho, recipe.epsilon) == (0.045, 0.9, 0.9, 0.1)


LENGTHS = ("steps", "warm_up_steps", "evaluate_every", "checkpoint_every")


def in_images(recipe, **own):
    """Returns all that a recipe says, its lengths in images."""
    lengths = {name: getattr(recipe, name) * (recipe.stated_for_batch or recipe.batch_size) for name in LENGTHS}
    patience = recipe.patience * lengths["evaluate_every"]
    return dataclasses.asdict(recipe) | lengths | {"patience": patience} | own


def test_the_gpu_preset_is_the_published_recipe_carried_to_larger_batches():
    paper, gpu = configuration.load("paper"), configuration.load("gpu")
    changed = {"batch_size": 256, "stated_for_batch": 64}
    often = {name: getattr(gpu.recipe, name) * 64 for name in LENGTHS[1:]}
    assert in_images(gpu.recipe) == in_images(paper.recipe, **changed, **often)
    assert (gpu.network, gpu.thresholds) == (paper.network, paper.thresholds)
    assert (gpu.engine.kind, gpu.engine.dtype_policy, gpu.engine.xla) == ("mirrored", "mixed_bfloat16", True)
    # Each GPU normalises its own images, which compiled steps need.
    assert not gpu.engine.synchronizes_batch_norm(256)


@pytest.mark.parametrize(("batch", "steps", "rate"), [(256, 425_000, 0.18), (2048, 53_125, 1.44)])
def test_more_gpus_are_one_setting(batch, steps, rate):
    recipe = configuration.load("gpu", [f"recipe.batch_size={batch}"]).recipe.effective()
    assert (recipe.steps, recipe.learning_rate) == (steps, pytest.approx(rate))
    assert recipe.warm_up_steps * batch == pytest.approx(5 * 400_000, rel=1e-3)


@pytest.mark.parametrize("name", sorted({*configuration.preset_names()} - {"gpu"}))
def test_the_rule_for_batch_sizes_is_off_elsewhere(name):
    recipe = configuration.load(name).recipe
    assert recipe.effective() is recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.stepz=1", "unknown key 'recipe.stepz'; did you mean 'steps'?"),
        ("stepz=1", "unknown key 'stepz'; remove it or fix its name"),
        ("steps=5", "unknown key 'steps'; did you mean 'recipe.steps' or 'tuning.steps' or 'cluster.steps'?"),
        ("names=x", "unknown key 'names'; did you mean 'name' or 'data.names'?"),
        ("data.synthetic.imags=9", "unknown key 'data.synthetic.imags'; did you mean 'images'?"),
        ("recipe.steps=-1", "recipe.steps is -1"),
        (
            "recipe.window_share=[0.9, 0.7]",
            "recipe.window_share is [0.9, 0.7]; give the smallest and the largest share",
        ),
        ("recipe.window_share=0.7", "recipe.window_share is 0.7; give the smallest and the largest share"),
        ("recipe.window_share=abc", "recipe.window_share is 'abc'; give the smallest and the largest share"),
        ("recipe.window_share=[a, 1]", "recipe.window_share.0 is 'a'; give the smallest and the largest share"),
        ("recipe.window_share=[0.7]", "recipe.window_share.1 is not set; give the smallest and the largest share"),
        ("network.variant=stock", "network.variant is 'stock'"),
        ("transform.shorter_side=10", "transform.shorter_side 10 is less than network.input_size 599"),
        ("recipe.steps", "has no '='"),
        ("name.x=1", "'name' holds a value"),
    ],
)
def test_a_wrong_setting_is_reported_in_one_line(override, message):
    with pytest.raises(InputError) as error:
        configuration.load("paper", [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


EVERY_SECTION = (
    "recipe.stated_for_batch=64",
    "recipe.window_share=[0.7, 1.0]",
    "engine.kind=multi_worker",
    "data.synthetic={}",
    "tuning.space={recipe.momentum: {min: 0.5, max: 0.9}}",
    "vertex={project: crystals-123, location: europe-west4}",
    "machines={}",
    "endpoint.name=drops",
    "cluster.volumes=[{claim: files, path: /files}]",
    "cluster.shared=/files",
    "cluster.replicas={}",
)


def numbers(values, *place):
    """Yields the places of all numbers in a configuration."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, dict | list):
            yield from numbers(value, *place, key)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*place, key)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -1])
def test_every_number_of_a_configuration_is_finite_and_not_negative(wrong):
    complete = configuration.load("local", [*EVERY_SECTION]).model_dump(mode="json")
    places = list(numbers(complete))
    assert len(places) > 80
    for *sections, last in places:
        values = copy.deepcopy(complete)
        functools.reduce(operator.getitem, sections, values)[last] = wrong
        named = last if isinstance(last, str) else sections[-1]
        # The limit of a search is refused by the range of the field that is searched.
        named = f"{named}|momentum" if "space" in sections else named
        with pytest.raises(InputError, match=rf"\b({named})\b.*{wrong}"):
            settings.parse(configuration.Configuration, values, "here")


def test_windows_are_native_in_the_paper_and_fit_evaluation_where_the_published_weights_are_tuned():
    assert configuration.load("paper").recipe.window_share is None
    assert configuration.load("finetune").recipe.window_share == (0.7, 1.0)
    assert configuration.load("finetune", ["recipe.window_share=null"]).recipe.window_share is None


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(InputError, match="paper"):
        configuration.load("papr")


def test_the_source_is_used_unchanged():
    assert configuration.load("local", source="2024").data.source == "2024"


def test_overrides_are_typed_and_the_result_is_frozen():
    changed = configuration.load("paper", ["recipe.learning_rate=1e-3", "data.source=some/folder"])
    assert changed.recipe.learning_rate == 1e-3
    assert changed.data.source == "some/folder"
    with pytest.raises(pydantic.ValidationError):
        changed.name = "other"


def test_a_sites_file_is_laid_over_a_preset_key_by_key(tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text("cluster: {steps: {Trainer: {accelerators: 8}}}\ntracking: {uri: http://mlflow}\n")
    plain = configuration.load("paper")
    loaded = configuration.load("paper", ["cluster.retries=5"], over=site)
    assert loaded.tracking.uri == "http://mlflow"
    assert loaded.cluster.steps["Trainer"].accelerators == 8
    assert loaded.cluster.steps["Trainer"].memory == plain.cluster.steps["Trainer"].memory
    assert loaded.cluster.steps["Evaluator"] == plain.cluster.steps["Evaluator"]
    assert (loaded.cluster.retries, loaded.recipe) == (5, plain.recipe)


def test_a_wrong_key_in_a_sites_file_names_the_file(tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text("cluster: {gpus: 8}\n")
    with pytest.raises(InputError, match=r"paper\.yaml with site\.yaml: unknown key 'cluster\.gpus'"):
        configuration.load("paper", over=site)
    with pytest.raises(InputError, match="there is no file"):
        configuration.load("paper", over=tmp_path / "none.yaml")


def test_the_site_that_comes_with_the_manifests_fits_every_preset():
    site = configuration.PRESETS.parents[1] / "k8s/site.yaml"
    for preset in configuration.preset_names():
        assert configuration.load(preset, over=site).cluster.shared == "/shared/marco"


def test_the_gates_rules_are_read_and_wrong_ones_are_named():
    loaded = configuration.load(
        "local", ["gate.slice_margin=0.05", "gate.cross=true", "gate.champion=gs://models/marco"]
    )
    assert (loaded.gate.slice_margin, loaded.gate.cross, loaded.gate.champion) == (0.05, True, "gs://models/marco")
    assert loaded.gate.slice_margin == 0.05
    assert configuration.load("local").gate.champion == "registry"
    for change, named in (
        ("gate.confidence=2", "gate.confidence is 2"),
        ("gate.champion=", "gate.champion"),
        ("gate.margin=0.1", "unknown key 'gate.margin'"),
        ("gate.recall_class=Crystal", "gate.recall_class 'Crystal' is not a class; choose from Clear, Crystals"),
    ):
        with pytest.raises(InputError, match=named):
            configuration.load("local", [change])


@pytest.mark.parametrize(
    ("text", "attribute", "values"),
    [
        ("institution", "institution", ()),
        ("imager=Rigaku Minstrel, Formulatrix Rock Imager", "imager", ("Rigaku Minstrel", "Formulatrix Rock Imager")),
        ("institution=CSIRO,", "institution", ("CSIRO",)),
    ],
)
def test_what_is_left_out_is_an_option(text, attribute, values):
    chosen = configuration.load("local", leave_out=text).leave_out
    assert (chosen.attribute, chosen.values) == (attribute, values)
    assert configuration.load("local").leave_out is None


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("country", [], "leave_out.attribute is 'country'; it must be 'institution' or 'imager'"),
        ("institution=CSIRO,CSIRO", [], "leave_out.values has a value twice: CSIRO, CSIRO"),
        ("imager", ["tuning={space: {recipe.momentum: {min: 0.5, max: 0.9}}}"], "leave_out and tuning are both set"),
    ],
)
def test_what_cannot_be_left_out_is_refused_in_one_line(text, changes, message):
    with pytest.raises(InputError, match=message):
        configuration.load("local", changes, leave_out=text)


def test_the_sources_to_leave_out_are_found_in_the_shards(tmp_path):
    from marco_data import synthetic

    synthetic.synthesize(tmp_path / "drops", 24, synthetic.Settings(shorter_side=32))
    drops = str(tmp_path / "drops")

    def find(text, *changes):
        return configuration.find_left_out(configuration.load("local", list(changes), leave_out=text), drops).leave_out

    manifest = json.loads((tmp_path / "drops" / "synthetic.json").read_text())
    assert find("institution").values == tuple(sorted(manifest["counts"]["institution"]))
    assert "Rigaku Minstrel" in find("imager").values
    # A site's own rules, as ExampleGen applies them.
    rule = "data.imagers=[{institution: CSIRO, pattern: '.*', imager: ours}]"
    assert find("imager", rule).values == ("ours",)  # `unknown` is no source.
    assert find("institution=Merck").values == ("Merck",)
    single = synthetic.Settings(shorter_side=32, institutions={"Merck": 1.0})
    synthetic.synthesize(tmp_path / "drops", 8, single, overwrite=True)
    with pytest.raises(InputError, match="all images have the institution Merck; leave_out needs two or more"):
        find("institution")
