"""Answer learners' questions about pieces, embeddings and positions."""

from collections.abc import Iterator

from foundation.wording import counted
from model.config.transformer import ModelConfig
from transloom.observe.explain.explanation import Explanation
from transloom.observe.explain.parts import number
from transloom.observe.explain.question import Question, length


def of_input(explained: Explanation) -> Iterator[Question]:
    config, source = explained.config, explained.source
    width, piece = config.width, source.texts[0]
    embedding = explained.trace.encoder.embedding
    scaled, position = embedding.scaled_btm[0, 0].float(), embedding.positions_tm[0].float()
    rows = next(
        box.weights[0].shape[0]
        for box in explained.blueprint.boxes()
        if box.kind == "embedding" and box.weights
    )
    yield Question(
        "Is a piece a one-hot vector?",
        f"As a one-hot vector, “{piece}” would be {rows:,} numbers, a 1 at place {source.ids[0]} "
        f"and zeros elsewhere. Multiplied by the embedding matrix it gives row {source.ids[0]} of "
        f"it, so the row is simply taken out. What goes on is this row of {width} numbers, which "
        "is not one-hot.",
        "encoder.embedding",
    )
    yield Question(
        "Are these vectors those of word2vec?",
        "No. The matrix is a part of this model and is trained with all other weights, to "
        "translate. word2vec's vectors are trained by themselves, to tell which words stand near "
        "each other.",
        "encoder.embedding",
    )
    if explained.form.turned:
        yield _how_order_is_known(explained)
        return
    yield Question(
        f"Why is the embedding multiplied by √{width}?",
        "The paper does not say. It keeps positions from drowning what the piece says: every "
        "position's vector has the length "
        f"√{width // 2} = {number((width / 2) ** 0.5)}; the embedding of “{piece}” has "
        f"{number(length(scaled))} as multiplied, and would have "
        f"{number(length(scaled) / width**0.5)}.",
        "encoder.positions",
    )
    products = embedding.positions_tm.float() @ position
    last = len(source.texts) - 1
    further = f", of 0 and {last} {number(products[last].item())}" if last > 1 else ""
    near = f"Of positions 0 and 1 it is {number(products[1].item())}{further}. " if last else ""
    yield Question(
        "What do positions say of nearness?",
        f"The dot product of two positions' vectors depends on their distance alone. {near}Of a "
        f"position with itself it is {number(width / 2)}, the most there is.",
        "encoder.positions",
    )


def _how_order_is_known(explained: Explanation) -> Question:
    d = explained.form.head_width
    last = rotation_of_last_pair(explained.config)
    return Question(
        "Nothing is added to the embedding: how does the model know the order?",
        "In each self-attention a query at position p is turned by p times some angles, a key at "
        "position q by q times the same. What is left of that in their product is p − q, so a "
        f"score can depend on the distance, whatever the positions. Of a head's {d} numbers "
        f"{counted(d // 2, 'pair')} have angles from 1 radian a position down to {last:.2g}: the "
        "first tell neighbours apart, the last what is far.",
        "encoder.1.self_attention",
    )


def rotation_of_last_pair(config: ModelConfig) -> float:
    """Return the angle in radians by which a head's last pair of numbers turns per position.

    Source: Su et al. 2021, §3.2.2.
    """
    width = config.head_width
    angle: float = config.rotary_base ** (2 / width - 1)
    return angle
