"""The section quantize of a recipe, with the tables of its methods and its gates.

Frozen types with their defaults and the rules that one section can check by itself. Knows neither files nor TOML.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from training.recipe_data import Dimensions, Path, Section, Strings

Sizes = Annotated[tuple[Annotated[int, Field(ge=2, le=65_536)], ...], Field(strict=False, min_length=1, max_length=8)]


class GivenCodes(Section):
    """Codes made elsewhere.

    Attributes:
        path: CSV or Parquet with code columns, or JSON ``{"item": ["<a_12>", "<b_5>"]}``.
        item: Id column.
        codes: Code columns, coarse to fine; not given, ``code_0``, ``code_1``, ….
    """

    path: Path
    item: str = "item_id"
    codes: Strings | None = None


class BalancedKMeans(Section):
    """k-means whose clusters are bounded in size.

    Attributes:
        slack: No code of a level has more items than this times an equal share.
    """

    slack: Annotated[float, Field(ge=1)] = 1.1


class ProductQuantization(Section):
    """k-means of parts of the vector, one part a level.

    Attributes:
        rotate: Turn the vectors first, so that all parts hold like shares of the variance and are uncorrelated; without
            it the parts are consecutive dimensions.
    """

    rotate: bool = False


class Rqvae(Section):
    """A network that is trained to say with codes what the vectors are.

    Attributes:
        hidden: Widths of the encoder's layers; the decoder has the same in reverse.
        latent: Dimensions of the centroids.
        epochs: Passes over the items.
        batch_size: Items a step.
        learning_rate: Of AdamW.
        commitment: Weight of the term that draws the encoder to its centroids.
    """

    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] = (256,)
    latent: Dimensions = 64
    epochs: Annotated[int, Field(ge=1)] = 100
    batch_size: Annotated[int, Field(ge=1)] = 256
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    commitment: Annotated[float, Field(ge=0)] = 0.25


class Gates(Section):
    """What codes must reach; a run whose codes do not stops, before a model is trained on them.

    Attributes:
        min_utilisation: Least share of a level's codes in use, of those that the number of items allows.
        min_entropy: Least entropy of a level's codes, as a share of the most possible.
        max_first_code_share: Most items with one first code, as a share of all.
        max_collision_share: Most items that share all codes before collisions are resolved, as a share of all.
    """

    min_utilisation: Annotated[float, Field(ge=0, le=1)] = 0.2
    min_entropy: Annotated[float, Field(ge=0, le=1)] = 0.3
    max_first_code_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    max_collision_share: Annotated[float, Field(ge=0, le=1)] = 1.0


METHOD_TABLES = ("balanced_kmeans", "product", "rqvae")
"""Methods with a table of their own, which has its defaults if it is not written."""


class Quantize(Section):
    """From vectors to codes.

    Attributes:
        method: `residual_kmeans`: k-means of what the levels before leave over. `balanced_kmeans`: the same with
            clusters of bounded size. `product`: k-means of parts of the vector. `rqvae`: a trained network. `random`:
            seeded. `given`: a file.
        codebook_sizes: Codes a level, without the collision level; 64 and 64 if not given, none for `given`.
        collisions: Items that share all codes: `level` tells them apart by one more level; `reassign` first gives them
            other codes of the last level, as near as can be, and adds a level only for what is left; `nearest` leaves
            the most popular and gives each other the nearest free codes; `refuse` stops.
        max_collision_codes: A collision level that would need more codes stops the run.
        spare_codes: So many codes more than needed in a collision level, for items that come later.
        given: The file of the method `given`.
        fit_items: k-means is fitted on at most this many items, drawn by the seed; all of them are assigned.
        iterations: Of k-means, at most.
        restarts: Fits a level, the best is kept.
    """

    method: Literal["residual_kmeans", "balanced_kmeans", "product", "rqvae", "random", "given"] = "residual_kmeans"
    codebook_sizes: Sizes | None = None
    collisions: Literal["level", "reassign", "nearest", "refuse"] = "level"
    max_collision_codes: Annotated[int, Field(ge=2, le=65_536)] = 1024
    spare_codes: Annotated[int, Field(ge=0, le=65_536)] = 4
    given: GivenCodes | None = None
    fit_items: Annotated[int, Field(ge=1)] = 200_000
    iterations: Annotated[int, Field(ge=1)] = 100
    restarts: Annotated[int, Field(ge=1)] = 3
    balanced_kmeans: BalancedKMeans | None = None
    product: ProductQuantization | None = None
    rqvae: Rqvae | None = None
    gates: Gates = Gates()

    @model_validator(mode="before")
    @classmethod
    def _made_codes_have_sizes(cls, table: Any) -> Any:  # noqa: ANN401  (whatever TOML holds)
        if not isinstance(table, dict) or table.get("method") == "given":
            return table
        own: dict[str, Any] = {table["method"]: {}} if table.get("method") in METHOD_TABLES else {}
        return {"codebook_sizes": (64, 64), **own, **table}

    @model_validator(mode="after")
    def _table_matches_method(self) -> Self:
        if (self.method == "given") != (self.given is not None):
            raise ValueError('method = "given" and a table [quantize.given] with a path come together or not at all')
        if (self.method == "given") != (self.codebook_sizes is None):
            raise ValueError('codebook_sizes are read from the file when method = "given"; remove the key')
        if self.collisions in ("reassign", "nearest") and self.method in ("random", "given"):
            raise ValueError(
                f'collisions = "{self.collisions}" needs centroids to measure by; use "level" with this method'
            )
        for name in METHOD_TABLES:
            if getattr(self, name) is not None and self.method != name:
                raise ValueError(f'[quantize.{name}] is set but method is "{self.method}"; change one of them')
        return self
