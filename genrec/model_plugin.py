"""A model family that transformers does not have, brought by an installed package.

The door is the entry-point group `genrec.models`: model type -> `ModelPlugin`. A package is imported when a checkpoint
or a recipe names its model type and not before; a bundle names a type, it never brings code. See docs/models.md.
"""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from inspect import signature
from typing import Any, Literal

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from genrec.errors import EngineError, InputError, one_line
from genrec.item_tokens import ItemTokens
from genrec.model_inputs import NO_INPUTS, Fill, ModelInputs, TokenLevels, fill_nothing

GROUP = "genrec.models"

_installed: dict[str, "ModelPlugin"] = {}  # those that were asked for


@dataclass(frozen=True, kw_only=True)
class ModelPlugin:
    """What has to be known of a family.

    Attributes:
        config_class: with a `model_type` of its own, under which the entry point stands too.
        model_class: with that `config_class`; its constructor takes the config alone, so whatever else it needs lives
            there. Its `forward` names `labels`, without which the Trainer measures no validation loss, and each of
            `inputs`. So does its encoder's: `generate` calls it directly, and T5's swallows what it does not name.
        architecture: seq2seq or causal.
        inputs: extra inputs, by name. Seq2seq only: what a decoder-only model generates would need them too, and
            `generate` does not lengthen them.
        fill: how they follow from padded token ids.
        config_keys: keys that the config adds to those of the family it extends, with defaults; a recipe may set them.
        trained_modules: last names of the modules that it adds; LoRA leaves them out, so they are trained whole.
    """

    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    architecture: Literal["seq2seq", "causal"]
    inputs: tuple[str, ...] = ()
    fill: Fill = fill_nothing
    config_keys: tuple[str, ...] = ()
    trained_modules: tuple[str, ...] = ()

    @property
    def model_type(self) -> str:
        """What config.json calls the family."""
        return str(self.config_class.model_type)

    def register(self) -> None:
        """Tell the Auto classes of it, in this process; any number of times.

        Raises:
            ValueError: transformers does not take it, as where the model's `config_class` is another.
        """
        auto = AutoModelForSeq2SeqLM if self.architecture == "seq2seq" else AutoModelForCausalLM
        AutoConfig.register(self.model_type, self.config_class, exist_ok=True)
        auto.register(self.config_class, self.model_class, exist_ok=True)

    def model_inputs(self, tokens: ItemTokens) -> ModelInputs:
        """The inputs of a model whose item tokens are these."""
        return ModelInputs(self.inputs, self.fill, TokenLevels(tokens)) if self.inputs else NO_INPUTS

    def swallowed_input(self, model: PreTrainedModel) -> str | None:
        """An input that the model's encoder would ignore without a word, or None."""
        if not self.inputs:
            return None
        classes: tuple[Any, ...] = type(model.get_encoder()).__mro__  # one may hand on what another names
        takes = {name for one in classes if "forward" in vars(one) for name in signature(one.forward).parameters}
        return next((name for name in self.inputs if name not in takes), None)

    def mistake(self, model_type: str) -> str | None:
        """What is wrong with it as the plug-in of a model type, or None."""
        if self.model_type != model_type:
            return f"its config_class has the model_type {self.model_type!r}"
        if self.inputs and self.architecture == "causal":
            return "extra inputs of a causal model are not supported; compute them from the ids in its forward"
        takes = signature(self.model_class.forward).parameters
        missing = [name for name in ("labels", *self.inputs) if name not in takes]
        if missing:
            return f"forward of {self.model_class.__name__} has no argument {missing[0]!r}"
        default = self.config_class()
        missing = [key for key in self.config_keys if not hasattr(default, key)]
        return f"{self.config_class.__name__} has no {missing[0]!r}, one of its config_keys" if missing else None


def installed_plugin(model_type: str) -> ModelPlugin | None:
    """The plug-in of a model type, imported and known to the Auto classes; None for a type that transformers has.

    Raises:
        InputError: nobody has such a type, two packages do, or the plug-in is not as it must be.
    """
    if model_type in CONFIG_MAPPING_NAMES:  # never asked for, so that no package can take the place of one of these
        return None
    if model_type not in _installed:
        points = {point.value: point for point in entry_points(group=GROUP, name=model_type)}
        if not points:
            others = sorted(entry_points(group=GROUP).names)
            raise InputError(
                f"model type {model_type[:100]!r} is of neither transformers nor an installed plug-in "
                f"(installed: {', '.join(others) or 'none'}); install the package that brings it."
            )
        if len(points) > 1:
            raise InputError(
                f"model type {model_type!r} is brought by {' and by '.join(sorted(points))}; uninstall all but one."
            )
        _installed[model_type] = _load(*points.values())
    return _installed[model_type]


def plugin_in_use(model: PreTrainedModel) -> ModelPlugin | None:
    """The plug-in that a loaded model was built by, None for a plain one."""
    return _installed.get(model.config.model_type)


def check_inputs(model: PreTrainedModel, inputs: ModelInputs) -> None:
    """Refuse to run a model without its extra inputs: it would answer, and otherwise than it was trained to.

    Raises:
        EngineError: it takes others than `inputs`.
    """
    plugin = plugin_in_use(model)
    wanted = () if plugin is None else plugin.inputs
    if set(wanted) != set(inputs.names):
        raise EngineError(
            f"a model of type {model.config.model_type!r} takes the extra inputs {list(wanted)} and was given "
            f"{list(inputs.names)}; hand its ModelInputs on."
        )


def _load(point: EntryPoint) -> ModelPlugin:
    package = point.dist.name if point.dist else point.value
    try:
        plugin: Any = point.load()
        mistake = plugin.mistake(point.name) if isinstance(plugin, ModelPlugin) else "it is no ModelPlugin"
        if mistake is None:
            plugin.register()
    except Exception as error:  # a package of someone else may raise anything
        raise InputError(
            f"the plug-in {point.name!r} of package {package} cannot be used: {one_line(error)}"
        ) from error
    if mistake is not None:
        raise InputError(f"the plug-in {point.name!r} of package {package} cannot be used: {mistake}.")
    found: ModelPlugin = plugin
    return found
